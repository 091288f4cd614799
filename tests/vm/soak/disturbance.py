"""What disturbs the guest: which commands, drawn at random, and what follows from them.

Nothing here runs a command. In the second half of a soak, the processes of the daemons are left
alone, so that what they hold can be compared.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.vm.soak.books import Rules

DROP_IN = "/etc/isolcpus-dp/isolcpus-dp.conf.d/soak.conf"
UNITS = "isolcpus-dp isolcpus-dp-pin"

# Housekeeping CPUs as well, but not CPU 0: it cannot go offline. CPUs that were isolated at boot.
SWITCHED = (1, 2, 3, 5, 6, 7)
ISOLATED = frozenset({2, 3, 6, 7})

DEFAULT = "default"
CONFIGURATIONS: Mapping[str, tuple[str, Rules]] = {
    DEFAULT: ("", Rules()),
    "spread": ("[Plugin]\nPlacement=spread\n", Rules()),
    "mixed": ("[Plugin]\nMixed=yes\n", Rules(mixed=True)),
    "shared": ("[Pinning]\nKeepOthersOff=no\n", Rules(keep_others_off=False)),
    "local": ("[Pinning]\nMemoryNodes=local\nCPUQuota=keep\n", Rules()),
    "metrics": ("[Metrics]\nListen=/run/isolcpus-dp/metrics.sock\n", Rules()),
}
WRONG = (
    "[Plugin]\nPlacement=tight\n",
    "[Pinning]\nKeepOthersOff=maybe\n",
    "[Plugin]\nCPUs=7-2\n",
    "Placement=spread\n",
    "[Plugin]\nResourceName=isolcpus\n",
)

_MAIN = "$(systemctl show --property=MainPID --value {} | grep -vx 0)"
_WORKER = f"$(pgrep --parent {_MAIN.format('isolcpus-dp')})"
_PINNING_DAEMON = _MAIN.format("isolcpus-dp-pin")
_KILL = "systemctl kill --kill-whom=main --signal=KILL"
# After another disturbance, a process may be there only a moment later.
_RETRIED = "for n in $(seq 40); do {} && break; sleep 0.25; ((n < 40)); done"
_PAUSE = "{{ " + _RETRIED.format("pid={} && kill -STOP $pid") + "; }} && sleep 3 && kill -CONT $pid"
# A daemon that is being started cannot be reloaded yet.
_RELOAD = (
    f"for n in $(seq 40); do systemctl is-active --quiet {UNITS} && break; sleep 0.5; done;"
    f" systemctl reload {UNITS}"
)

# By name: the command and how often it is drawn.
AT_ANY_TIME: Mapping[str, tuple[str, int]] = {
    "kubelet restarted": ("systemctl restart kubelet", 3),
    "kubelet killed": (_RETRIED.format(f"{_KILL} kubelet"), 3),
    "containerd restarted": ("systemctl restart containerd", 2),
    "containerd killed": (_RETRIED.format(f"{_KILL} containerd"), 2),
    "worker stopped for 3 s": (_PAUSE.format(_WORKER), 1),
    "pinning daemon stopped for 3 s": (_PAUSE.format(_PINNING_DAEMON), 1),
}
# These end a process of a daemon.
EARLY: Mapping[str, tuple[str, int]] = {
    "worker killed": (_RETRIED.format(f"kill -KILL {_WORKER}"), 2),
    "main process killed": (_RETRIED.format(f"{_KILL} isolcpus-dp"), 1),
    "pinning daemon killed": (_RETRIED.format(f"{_KILL} isolcpus-dp-pin"), 2),
    "both daemons restarted": (f"systemctl restart {UNITS}", 1),
}
OFFLINE, ONLINE, RELOADED, NOT_RELOADED = (
    "CPU taken offline", "CPU brought online", "configuration reloaded",
    "wrong configuration rejected",
)  # fmt: skip
_OTHER_WEIGHTS = {OFFLINE: 2, RELOADED: 3, NOT_RELOADED: 1}

# How many disturbances come together, and how often; the seconds between two of them.
_TOGETHER = {1: 6, 2: 3, 3: 1}
_APART = (0.0, 2.0)


@dataclass(frozen=True)
class Step:
    """A disturbance: its name, and the bash command that must succeed."""

    name: str
    command: str


class Disturbances:
    """Draws disturbances; knows which CPU is offline, and which configuration is in force."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.offline: int | None = None
        self.configuration = DEFAULT

    @property
    def is_as_at_first(self) -> bool:
        return self.offline is None and self.configuration == DEFAULT

    @property
    def rules(self) -> Rules:
        """What the configuration in force says about containers."""
        return CONFIGURATIONS[self.configuration][1]

    @property
    def allocatable(self) -> int:
        """The number of healthy devices."""
        return len(ISOLATED - {self.offline})

    def draw(self, *, early: bool) -> list[Step]:
        """The next disturbances; `early` is the first half of the soak."""
        if self.offline is not None and self._chance.random() < 0.4:
            return [self._online()]
        weights = {name: weight for name, (_, weight) in AT_ANY_TIME.items()} | _OTHER_WEIGHTS
        if early:
            weights |= {name: weight for name, (_, weight) in EARLY.items()}
        if self.offline is not None:
            del weights[OFFLINE]
        [count] = self._chance.choices([*_TOGETHER], [*_TOGETHER.values()])
        names: list[str] = []
        while len(names) < count:
            [name] = self._chance.choices([*weights], [*weights.values()])
            # A daemon that starts while the configuration is wrong would not start again.
            if name == NOT_RELOADED and names:
                break
            names.append(name)
            del weights[name]
            if name == NOT_RELOADED:
                break
        return [self._step(name) for name in names]

    def each_configuration(self) -> list[Step]:
        """All configurations once: a daemon loads what one of them needs, and keeps it."""
        return [self._reload(one) for one in (*CONFIGURATIONS, DEFAULT)]

    def restore(self) -> list[Step]:
        """What makes everything as it was at first."""
        steps = [self._online()] if self.offline is not None else []
        if self.configuration != DEFAULT:
            steps.append(self._reload(DEFAULT))
        return steps

    def _step(self, name: str) -> Step:
        special: Mapping[str, Callable[[], Step]] = {
            OFFLINE: self._offline,
            RELOADED: lambda: self._reload(self._other_configuration()),
            NOT_RELOADED: self._reject,
        }
        if name in special:
            return special[name]()
        return Step(name, {**AT_ANY_TIME, **EARLY}[name][0])

    def _offline(self) -> Step:
        self.offline = self._chance.choice(SWITCHED)
        return Step(OFFLINE, f"echo 0 > /sys/devices/system/cpu/cpu{self.offline}/online")

    def _online(self) -> Step:
        switch = f"echo 1 > /sys/devices/system/cpu/cpu{self.offline}/online"
        self.offline = None
        # An emulated CPU may be too slow for the kernel.
        return Step(ONLINE, f"{{ {switch} || {switch}; }}")

    def _other_configuration(self) -> str:
        if self.configuration != DEFAULT and self._chance.random() < 0.5:
            return DEFAULT
        return self._chance.choice([one for one in CONFIGURATIONS if one != self.configuration])

    def _reload(self, configuration: str) -> Step:
        self.configuration = configuration
        text = CONFIGURATIONS[configuration][0]
        return Step(RELOADED, f"{_write(text)} && {{ {_RELOAD}; }}")

    def _reject(self) -> Step:
        right = CONFIGURATIONS[self.configuration][0]
        wrong = self._chance.choice(WRONG)
        reload = " && ".join(f"! systemctl reload {unit} 2>/dev/null" for unit in UNITS.split())
        return Step(
            NOT_RELOADED, f"{_write(wrong)}; {reload}; status=$?; {_write(right)}; (exit $status)"
        )


def _write(text: str) -> str:
    """A command that replaces the drop-in at once."""
    return f"printf %s {shlex.quote(text)} > {DROP_IN}.new && mv {DROP_IN}.new {DROP_IN}"


def script(chance: random.Random, steps: list[Step], recovered: str, seconds: float) -> str:
    """A bash script: the steps, then the wait until a condition has held three times in a row.

    Prints `failed NAME` for a step that fails, and at last `recovered SECONDS`, measured from the
    last step to the first of the three times, or `late`.
    """
    lines = []
    for number, step in enumerate(steps):
        if number:
            lines.append(f"sleep {chance.uniform(*_APART):.2f}")
        lines += ["began=$(now)", f"{{ {step.command}; }} >&2 || echo failed {step.name}"]
    return "\n".join(
        [
            "now() { cut -d ' ' -f 1 /proc/uptime; }",
            *lines,
            f"end=$((SECONDS + {seconds:.0f})) times=0",
            "while ((times < 3)); do",
            f"    if {recovered}; then",
            "        ((times)) || at=$(now)",
            "        times=$((times + 1))",
            "    else times=0; fi",
            "    ((SECONDS <= end)) || { echo late; exit; }",
            "    sleep 0.2",
            "done",
            'echo "recovered $(echo "$began $at" | awk \'{ print $2 - $1 }\')"',
        ]
    )
