"""What to do about each kind of disturbance: `check` and `measure` give the same advice.

Each function takes the CPUs that its command names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import boot, services, settings

if TYPE_CHECKING:
    from isolcpus_dp.report.check.settings import Cpus

STOP_THE_TICK = "boot with nohz_full=, which stops it on a CPU where one thread runs"
FIND_SHARED_MEMORY = "find what shares memory with the owner"
HUGE_PAGES = f"Boot with {boot.HUGE_PAGES} or transparent_hugepage=never."


def processes(housekeeping: frozenset[int]) -> str:
    return (
        "For a container: run isolcpus-dp-pin, which keeps it off these CPUs. For a process of the"
        f" host: run taskset -apc {render(housekeeping)} PID, and set"
        f" {services.allowed(housekeeping)} for its slice or init.scope, as isolcpus-dp plan"
        " does, or correct CPUAffinity= in its unit."
    )


def kernel_threads(housekeeping: frozenset[int]) -> str:
    return (
        f"Move each: taskset -pc {render(housekeeping)} PID (nohz_full= keeps most of them off"
        " isolated CPUs from boot on)"
    )


def work_queues(cpus: Cpus, file: object = None) -> str:
    """`file` is the path of the mask, if it is not the usual one."""
    command = settings.WORK_QUEUES.command(cpus, file)
    return f"Run: {command} (nohz_full= sets this mask at boot)"


def interrupts(housekeeping: frozenset[int]) -> str:
    return f"Move each: echo {render(housekeeping)} > /proc/irq/NUMBER/smp_affinity_list"


def nohz_full(isolated: frozenset[int]) -> str:
    return f"Boot with {boot.nohz_full(isolated)}"


def tick_of_the_boot_cpu(isolated: frozenset[int]) -> str:
    """The kernel never stops the tick of CPU 0, which is one of these isolated CPUs."""
    others = isolated - boot.BOOT_CPU
    return f"Boot with {boot.isolcpus(others)}" if others else "Isolate another CPU instead."


def rcu_nocbs(isolated: frozenset[int]) -> str:
    return f"Boot with {boot.rcu_nocbs(isolated)}, or with nohz_full=, which implies it."


def watchdog(cpus: Cpus) -> str:
    return f"Run: {settings.WATCHDOG_CPUS.command(cpus)} (nohz_full= sets this mask at boot)"


def governor(cpus: Cpus) -> str:
    """`cpus.isolated` are those with another governor."""
    wanted = settings.GOVERNOR.value(cpus)
    return f"Run: cpupower -c {render(cpus.isolated)} frequency-set -g {wanted}"


def numa_balancing(cpus: Cpus) -> str:
    return f"Run: {settings.NUMA_BALANCING.command(cpus)}"
