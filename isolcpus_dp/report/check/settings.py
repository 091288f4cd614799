"""The kernel's settings that keep isolated CPUs quiet: which check asks for each, and its value.

`check` advises them on a running host, and `plan` writes them to a host's files. The kernel's
arguments are in `boot`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from isolcpus_dp.host.cpulist import render, render_mask

# The variables with which irqbalance uses other CPUs than all but the isolated ones. If both are
# set, it uses the mask only (setup_banned_cpus() in its cputree.c).
BANNED_MASK, BANNED_LIST = "IRQBALANCE_BANNED_CPUS", "IRQBALANCE_BANNED_CPULIST"

# An idle state with a longer exit latency delays a packet too much.
QUICK_MICROSECONDS = 10


class Cpus(NamedTuple):
    """The CPUs of a host, divided."""

    isolated: frozenset[int]
    housekeeping: frozenset[int]


@dataclass(frozen=True)
class Setting:
    """A file of the kernel, and what it should contain."""

    check: str  # the id of the check that asks for it
    root: Literal["/proc", "/sys"]
    name: str  # the file below its root; {cpu} stands for the number of each isolated CPU
    value: Callable[[Cpus], str]
    why: str  # one sentence

    @property
    def path(self) -> str:
        return f"{self.root}/{self.name}"

    @property
    def per_cpu(self) -> bool:
        return "{cpu}" in self.name

    @property
    def sysctl(self) -> str | None:
        """Its name for sysctl; None if sysctl cannot set it."""
        prefix = "sys/"
        if self.root != "/proc" or not self.name.startswith(prefix):
            return None
        return self.name[len(prefix) :].replace("/", ".")

    def command(self, cpus: Cpus, file: object = None) -> str:
        """The shell command that sets it until the next boot; `file` may replace its path."""
        if self.sysctl:
            return f"sysctl {self.sysctl}={self.value(cpus)}"
        return f"echo {self.value(cpus)} > {file or self.path}"


TIMER_MIGRATION = Setting(
    "timers",
    "/proc",
    "sys/kernel/timer_migration",
    lambda _: "1",
    "Timers that isolated CPUs start may run on housekeeping CPUs.",
)
WATCHDOG_CPUS = Setting(
    "watchdog",
    "/proc",
    "sys/kernel/watchdog_cpumask",
    lambda cpus: render(cpus.housekeeping),
    "The kernel's watchdog does not interrupt isolated CPUs.",
)
NUMA_BALANCING = Setting(
    "numa-balancing",
    "/proc",
    "sys/kernel/numa_balancing",
    lambda _: "0",
    "No page faults to see which memory a process uses.",
)
INTERRUPTS = Setting(
    "irq-affinity",
    "/proc",
    "irq/default_smp_affinity",
    lambda cpus: render_mask(cpus.housekeeping),
    "New device interrupts fire on housekeeping CPUs.",
)
WORK_QUEUES = Setting(
    "workqueues",
    "/sys",
    "devices/virtual/workqueue/cpumask",
    lambda cpus: render_mask(cpus.housekeeping),
    "Unbound kernel work runs on housekeeping CPUs.",
)
GOVERNOR = Setting(
    "cpu-frequency",
    "/sys",
    "devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor",
    lambda _: "performance",
    "Isolated CPUs do not change their frequency.",
)
LATENCY_LIMIT = Setting(
    "idle-states",
    "/sys",
    "devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us",
    lambda _: str(QUICK_MICROSECONDS),
    "Isolated CPUs enter no idle state that takes longer to leave, in microseconds.",
)

SETTINGS = (
    TIMER_MIGRATION,
    WATCHDOG_CPUS,
    NUMA_BALANCING,
    INTERRUPTS,
    WORK_QUEUES,
    GOVERNOR,
    LATENCY_LIMIT,
)
