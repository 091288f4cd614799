"""Host tuning: the kernel's settings in /proc and /sys, which last only until the next boot.

TuneD sets them where it is installed. Otherwise systemd does as many as it can at boot: it sets
files that exist early, and neither moves interrupts nor kernel threads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.plan import tmpfiles, tuned
from isolcpus_dp.plan.part import MARK, File, Part
from isolcpus_dp.report.check.settings import (
    BANNED_LIST,
    BANNED_MASK,
    GOVERNOR,
    INTERRUPTS,
    SETTINGS,
    WATCHDOG_CPUS,
    WORK_QUEUES,
    Cpus,
    Setting,
)

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target
    from isolcpus_dp.plan.survey import Known

_SUMMARY = (
    "Interrupts, kernel work and timers stay on the housekeeping CPUs; isolated CPUs neither sleep"
    " deeply nor change their frequency."
)
_IRQBALANCE = PurePosixPath("/etc/systemd/system/irqbalance.service.d/90-isolcpus-dp.conf")
# All files that the part may ever write.
PATHS = (*tuned.PATHS, *tmpfiles.PATHS, _IRQBALANCE)
# How the kernel prints the settings that are CPUs.
_CPUS = {
    WATCHDOG_CPUS: cpulist.parse,
    INTERRUPTS: cpulist.parse_mask,
    WORK_QUEUES: cpulist.parse_mask,
}


def part(goal: Goal, target: Target) -> Part:
    """The part; it has neither files nor commands if no CPU is isolated."""
    if not goal.isolated:
        return Part("tuning", _SUMMARY)
    cpus = Cpus(goal.isolated, goal.housekeeping)
    if target.tuned:
        return Part(
            "tuning",
            _SUMMARY,
            (*tuned.files(cpus), _irqbalance()),
            tuned.COMMANDS,
            _notes_with_tuned(goal, target),
        )
    return Part(
        "tuning",
        _SUMMARY,
        (*tmpfiles.files(cpus), _irqbalance()),
        notes=(
            f"Without TuneD, {_rest(goal)}; if the driver of the CPUs' frequency is a module, such"
            f" as acpi-cpufreq, run systemd-tmpfiles --create {tmpfiles.TMPFILES} after each boot.",
        ),
    )


def differences(goal: Goal, known: Known, root: Path) -> Iterator[str]:
    """Settings of the running host that are not as planned, as sentences. Raises Unseen.

    Those that the kernel does not have are left out, and offline CPUs do not count.
    """
    if not goal.isolated:
        return
    if known.target.tuned:
        yield from tuned.differences(root)
    cpus, online = Cpus(goal.isolated, goal.housekeeping), goal.machine.online
    for setting in SETTINGS:
        present = _present(setting, goal.isolated & online, root)
        wanted = _meaning(setting, setting.value(cpus), online)
        for text, where in sorted(present.items()):
            if _meaning(setting, text, online) != wanted:
                name = (
                    f"{Path(setting.path).name} of CPU {render(where)}" if where else setting.path
                )
                again = _again(setting, known.target)
                yield f"{name} is {text}, and not {setting.value(cpus)}: {again}"


def _present(setting: Setting, isolated: frozenset[int], root: Path) -> dict[str, set[int]]:
    """By value: the CPUs that have it, none for a setting that is not of a CPU. Raises Unseen."""
    path = str(root / setting.path.lstrip("/"))
    if not setting.per_cpu:
        text = files.text(path)
        return {text: set()} if text else {}
    found = defaultdict[str, set[int]](set)
    for cpu in sorted(isolated):
        text = files.text(path.format(cpu=cpu))
        if text:
            found[text].add(cpu)
    return found


def _meaning(setting: Setting, text: str, online: frozenset[int]) -> object:
    """A value that can be compared: of CPUs, those that are online."""
    parse = _CPUS.get(setting)
    return parse(text) & online if parse else text


def _again(setting: Setting, target: Target) -> str:
    """What applies the files of the plan again."""
    if target.tuned:
        return "reboot, or run systemctl restart tuned.service"
    if setting.sysctl:
        return f"reboot, or run sysctl -p {tmpfiles.SYSCTL}"
    # A driver that is a module may be loaded after the files were applied, at each boot.
    when = "run" if setting == GOVERNOR else "reboot, or run"
    return f"{when} systemd-tmpfiles --create {tmpfiles.TMPFILES}"


def _notes_with_tuned(goal: Goal, target: Target) -> tuple[str, ...]:
    if target.distribution != "debian":
        return ()
    # It needs a module perf for Python.
    return (
        "TuneD of Debian 12 cannot load its plugin scheduler (/var/log/tuned/tuned.log says so):"
        f" there, {_rest(goal)}.",
    )


def _rest(goal: Goal) -> str:
    """What only TuneD's plugin scheduler does."""
    housekeeping = render(goal.housekeeping)
    return (
        "move interrupts that a driver has put on isolated CPUs (echo"
        f" {housekeeping} > /proc/irq/NUMBER/smp_affinity_list), and kernel threads that choose"
        f" their CPUs themselves, such as kswapd (taskset -pc {housekeeping} PID), after each boot"
    )


def _irqbalance() -> File:
    """A drop-in with which irqbalance skips the isolated CPUs, whatever its environment file says.

    Environment= could not do that: the settings of an EnvironmentFile= override it (systemd.exec).
    """
    return File(
        _IRQBALANCE,
        f"# {MARK}\n"
        "# Without these variables, irqbalance skips the isolated CPUs.\n"
        "[Service]\n"
        f"UnsetEnvironment={BANNED_MASK} {BANNED_LIST}\n",
    )
