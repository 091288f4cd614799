"""Settings of the kernel that interrupt or slow down who runs on an isolated CPU."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, some, unknown, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# To leave an idle state of a longer exit latency takes longer than a packet may wait.
_QUICK_MICROSECONDS = 10
_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "pit", "refined-jiffies")


def watchdog(host: Host) -> Finding:
    """The kernel's watchdogs for lockups, and the CPUs they watch."""
    folder = host.roots.proc / "sys/kernel"
    running = [name for name in ("watchdog", "nmi_watchdog") if files.number(folder / name)]
    watched = cpulist.parse(files.text(folder / "watchdog_cpumask")) & host.isolated
    # `watchdog` stands for the soft and the NMI watchdog together: 1 if either runs.
    if running and watched:
        return warning(
            f"the kernel's watchdog interrupts CPU {render(watched)}",
            f"sysctl kernel.watchdog_cpumask={render(host.housekeeping)}; nohz_full= does so when"
            " the kernel boots.",
        )
    return ok("no watchdog on isolated CPUs")


def timers(host: Host) -> Finding:
    """Whether timers may leave isolated CPUs, and which clock the kernel reads."""
    migration = files.number(host.roots.proc / "sys/kernel/timer_migration")
    if migration == 0:
        return warning(
            "timers stay on the CPU that set them (kernel.timer_migration is 0)",
            "sysctl kernel.timer_migration=1",
        )
    folder = host.roots.sysfs / "devices/system/clocksource/clocksource0"
    clock = files.text(folder / "current_clocksource")
    if clock in _SLOW_CLOCKS:
        return warning(
            f"the kernel reads the slow clock {clock}",
            "See why it distrusts the CPU's own (dmesg | grep -i tsc).",
        )
    if migration is None and not clock:
        return unknown("neither timers nor clock are to be seen", "Look where /proc is the host's.")
    return ok(f"timers may move; the clock is {clock or 'not told'}")


def frequency(host: Host) -> Finding:
    """The frequency governor of isolated CPUs."""
    governors = {
        cpu: files.text(_cpu(host, cpu, "cpufreq/scaling_governor")) for cpu in host.isolated
    }
    slow = {cpu: name for cpu, name in governors.items() if name and name != "performance"}
    if slow:
        return warning(
            f"the governor of CPU {render(slow)} is {some(sorted(set(slow.values())))}",
            f"cpupower -c {render(slow)} frequency-set -g performance",
        )
    if not any(governors.values()):
        return ok("the kernel does not govern the frequency of isolated CPUs")
    return ok("the governor of isolated CPUs is performance")


def idle_states(host: Host) -> Finding:
    """The idle states that isolated CPUs may enter."""
    deep = {cpu: names for cpu in host.isolated if (names := _deep_states(host, cpu))}
    if deep and not _all_held_awake(host):
        names = sorted({name for names in deep.values() for name in names})
        return warning(
            f"CPU {render(deep)} may fall into states that take more than"
            f" {_QUICK_MICROSECONDS} us to leave: {some(names)}",
            f"cpupower -c {render(deep)} idle-set -D {_QUICK_MICROSECONDS}, or hold"
            f" {host.roots.latency} open at that, as TuneD's force_latency= does.",
        )
    return ok(f"isolated CPUs wake within {_QUICK_MICROSECONDS} us, as far as the kernel decides")


def huge_pages(host: Host) -> Finding:
    """Transparent huge pages: making them stops a process."""
    said = files.text(host.roots.sysfs / "kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", said)
    if chosen and chosen[1] == "always":
        return warning(
            "transparent huge pages are always made: khugepaged moves the memory of owners",
            "Boot with transparent_hugepage=madvise (or never).",
        )
    return ok(f"transparent huge pages: {chosen[1] if chosen else 'none in this kernel'}")


def numa_balancing(host: Host) -> Finding:
    """Automatic NUMA balancing: it makes a process fault to see which memory it uses."""
    if files.number(host.roots.proc / "sys/kernel/numa_balancing"):
        return warning(
            "the kernel samples the memory of processes to move it (kernel.numa_balancing)",
            "sysctl kernel.numa_balancing=0",
        )
    return ok("off")


def _cpu(host: Host, cpu: int, name: str) -> str:
    return f"{host.roots.sysfs}/devices/system/cpu/cpu{cpu}/{name}"


def _deep_states(host: Host, cpu: int) -> list[str]:
    """The names of the enabled idle states of a CPU that take long to leave."""
    if _held_awake(host, cpu):
        return []
    folder = _cpu(host, cpu, "cpuidle")
    return [
        files.text(f"{folder}/{state}/name") or state
        for state in files.names(folder)
        if (files.number(f"{folder}/{state}/latency") or 0) > _QUICK_MICROSECONDS
        and not files.number(f"{folder}/{state}/disable")
    ]


def _held_awake(host: Host, cpu: int) -> bool:
    """Whether somebody forbids deep states of this CPU by its quality of service.

    ABI/testing/sysfs-devices-power: 0 is no demand, n/a is no latency at all.
    """
    said = files.text(_cpu(host, cpu, "power/pm_qos_resume_latency_us"))
    return said == "n/a" or (said.isdecimal() and 0 < int(said) <= _QUICK_MICROSECONDS)


def _all_held_awake(host: Host) -> bool:
    """Whether a process forbids deep states of all CPUs, as TuneD and cyclictest do.

    power/pm_qos_interface: the file gives the lowest of all demands in us, as an int of 32 bits.
    To open it for reading demands nothing. Raises Unseen: it is root's.
    """
    said = files.raw(host.roots.latency)
    demand = int.from_bytes(said, sys.byteorder, signed=True)
    return len(said) == 4 and demand <= _QUICK_MICROSECONDS
