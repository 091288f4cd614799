"""Host tuning: the kernel's settings in /proc and /sys, which last only until the next boot.

TuneD sets them where it is installed. Otherwise systemd does as many as it can at boot: it sets
files that exist early, and neither moves interrupts nor kernel threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.plan import tmpfiles, tuned
from isolcpus_dp.plan.part import MARK, File, Part
from isolcpus_dp.report.check.settings import BANNED_LIST, BANNED_MASK, Cpus

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target

_SUMMARY = (
    "Interrupts, kernel work and timers stay on the housekeeping CPUs; isolated CPUs neither sleep"
    " deeply nor change their frequency."
)
_IRQBALANCE = PurePosixPath("/etc/systemd/system/irqbalance.service.d/90-isolcpus-dp.conf")


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
            tuple(_notes_with_tuned(goal, target)),
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


def _notes_with_tuned(goal: Goal, target: Target) -> Iterator[str]:
    former = " and ".join(map(str, tmpfiles.PATHS))
    yield (
        f"If a plan was written before TuneD was installed, remove {former}: TuneD applies files in"
        " /etc/sysctl.d after its profile."
    )
    if target.distribution == "debian":
        # It needs a module perf for Python.
        yield (
            "TuneD of Debian 12 cannot load its plugin scheduler (/var/log/tuned/tuned.log says"
            f" so): there, {_rest(goal)}."
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
