"""How long each thread, interrupt, softirq and NMI ran, by the kernel's osnoise tracer.

Only its events are used; its own busy threads stay off (OSNOISE_WORKLOAD). That option and the
CPUs are settings of the whole kernel. They are noted in a file before they are changed, so that the
next measurement can restore them if this one is killed. See Documentation/trace/osnoise-tracer.rst.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.activity import Noise, Source
from isolcpus_dp.measure.record import threads, tracefs
from isolcpus_dp.measure.record.histogram import CPU, Tallies, Trigger

if TYPE_CHECKING:
    from isolcpus_dp.measure.record.roots import Roots

_TIMES = "duration.log2"

# The name of a thread is no key, because the kernel allows three.
TRIGGERS: Mapping[Source, Trigger] = {
    Source.THREAD: Trigger("osnoise/thread_noise", ("pid", CPU, _TIMES), "duration", 8192),
    Source.INTERRUPT: Trigger("osnoise/irq_noise", ("desc", CPU, _TIMES), "duration", 4096),
    Source.SOFTIRQ: Trigger("osnoise/softirq_noise", ("vector", CPU, _TIMES), "duration"),
    Source.NMI: Trigger("osnoise/nmi_noise", (CPU, _TIMES), "duration"),
}

_NOTE = "isolcpus-dp-measure.osnoise"
_WORKLOAD = "OSNOISE_WORKLOAD"
_TRACERS = frozenset({"osnoise", "timerlat"})

# osnoise_cpus_write() accepts less than 256 bytes.
_LONGEST_LIST = 254


def start(
    roots: Roots, instance: tracefs.Instance, cpus: frozenset[int], online: frozenset[int]
) -> None:
    """Starts the tracer in an instance, and counts its events. Raises Unseen."""
    tracers = files.text(roots.tracefs / "available_tracers").split()
    if "osnoise" not in tracers:
        raise Unseen("the kernel has no osnoise tracer (CONFIG_OSNOISE_TRACER)")
    used = _used_in(roots.tracefs)
    if used:
        raise Unseen(f"another program uses the tracer: see {used}")
    settings = roots.tracefs / "osnoise"
    options = files.text(settings / "options").split()
    if _WORKLOAD not in options and f"NO_{_WORKLOAD}" not in options:
        raise Unseen(
            "the osnoise tracer of this kernel cannot run without its own busy threads: the option"
            f" {_WORKLOAD}, of Linux 6.2, is missing"
        )
    _set(roots, options, cpus)
    instance.set_tracer("osnoise")
    for trigger in TRIGGERS.values():
        instance.add(trigger, cpus, online)


def restore(roots: Roots) -> None:
    """Restores what was noted, also by an earlier measurement; does nothing without a note."""
    note = roots.run / _NOTE
    try:
        noted = json.loads(note.read_text())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        noted = {}  # it was killed while it wrote this: nothing was changed yet
    for name in ("options", "cpus"):
        if isinstance(noted, dict) and noted.get(name):
            with contextlib.suppress(OSError):
                tracefs.write(roots.tracefs / "osnoise" / name, f"{noted[name]}\n")
    with contextlib.suppress(OSError):
        note.unlink()


def noises(
    tallies: Mapping[Source, Tallies],
    comms: Mapping[int, str],
    softirqs: Sequence[str],
    ignored: Collection[int],
) -> tuple[Noise, ...]:
    """The noises of one CPU, those that took the most time first.

    `comms` has the threads' names by PID, `softirqs` the names by number.
    """
    found = []
    for source, by_key in tallies.items():
        buckets: dict[str, list[tuple[int, int, int]]] = {}
        for key, tally in by_key.items():
            *named, power = key
            if source is Source.THREAD and _is_left_out(int(named[0]), ignored):
                continue
            name = _name(source, named, comms, softirqs)
            buckets.setdefault(name, []).append((tally.hits, tally.total, int(power)))
        found += [
            Noise(
                source,
                name,
                count=sum(hits for hits, _, _ in parts),
                total_us=sum(total for _, total, _ in parts) / 1000,
                # A bucket has the durations up to this power of two, and above half of it.
                longest_us=2 ** max(power for _, _, power in parts) / 1000,
            )
            for name, parts in buckets.items()
        ]
    return tuple(sorted(found, key=lambda noise: (-noise.total_us, noise.name)))


def _is_left_out(pid: int, ignored: Collection[int]) -> bool:
    return pid == threads.IDLE or pid in ignored


def _name(
    source: Source, named: Sequence[str], comms: Mapping[int, str], softirqs: Sequence[str]
) -> str:
    if source is Source.NMI:
        return "NMI"
    if source is Source.THREAD:
        pid = int(named[0])
        return threads.name(comms.get(pid, "thread"), pid)
    if source is Source.SOFTIRQ:
        vector = int(named[0])
        return softirqs[vector] if vector < len(softirqs) else str(vector)
    return named[0]


def _used_in(root: Path) -> str:
    """The file that shows who uses the tracer, in whole or in an instance; empty if nobody does."""
    instances = root / "instances"
    places = [root, *(instances / name for name in files.names(instances))]
    for place in places:
        if files.text(place / "current_tracer") in _TRACERS:
            return str(place / "current_tracer")
    return ""


def _set(roots: Roots, options: Collection[str], cpus: frozenset[int]) -> None:
    """Notes the settings, and changes those that differ from what is needed. Raises Unseen."""
    settings = roots.tracefs / "osnoise"
    had = files.text(settings / "cpus")
    wanted = cpulist.render(cpus)
    changes = {}
    if _WORKLOAD in options:
        changes["options"] = (_WORKLOAD, f"NO_{_WORKLOAD}")
    if had != wanted and len(wanted) <= _LONGEST_LIST:
        changes["cpus"] = (had, wanted)
    elif not _parsed(had) >= cpus:
        raise Unseen(f"{settings / 'cpus'} does not have all of the CPUs: write them into it")
    if not changes:
        return
    try:
        (roots.run / _NOTE).write_text(
            json.dumps({name: former for name, (former, _) in changes.items()})
        )
        for name, (_, value) in changes.items():
            tracefs.write(settings / name, f"{value}\n")
    except OSError as error:
        raise Unseen(f"cannot change {settings}: {error.strerror}") from error


def _parsed(text: str) -> frozenset[int]:
    try:
        return cpulist.parse(text)
    except cpulist.CpuListError:
        return frozenset()
