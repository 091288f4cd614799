"""Kernel settings that interrupt or slow down processes on isolated CPUs."""

from __future__ import annotations

import re
import sys

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import advice, files, settings
from isolcpus_dp.report.check.finding import Finding, ok, some, unknown, warning
from isolcpus_dp.report.check.host import HOST_PROC, Host
from isolcpus_dp.report.check.settings import QUICK_MICROSECONDS, Cpus, Setting

_SLOW_CLOCKS = ("hpet", "acpi_pm", "jiffies", "pit", "refined-jiffies")


def watchdog(host: Host) -> Finding:
    """The kernel's lockup watchdogs and the CPUs they watch."""
    directory = host.roots.proc / "sys/kernel"
    running = [name for name in ("watchdog", "nmi_watchdog") if files.number(directory / name)]
    cpus = files.text(host.roots.proc / settings.WATCHDOG_CPUS.name)
    watched = cpulist.parse(cpus) & host.isolated
    # `watchdog` covers the soft and the NMI watchdog: it is 1 if either is on.
    if running and watched:
        return warning(
            f"the kernel's watchdog interrupts isolated CPU {render(watched)}",
            advice.watchdog(_cpus(host)),
        )
    return ok("the kernel's watchdog does not run on isolated CPUs")


def timers(host: Host) -> Finding:
    """Whether timers may migrate from isolated CPUs, and the kernel's clock source."""
    migration = files.number(host.roots.proc / settings.TIMER_MIGRATION.name)
    if migration == 0:
        return warning(
            "timers stay on the CPU that set them (kernel.timer_migration is 0)",
            _run(host, settings.TIMER_MIGRATION),
        )
    directory = host.roots.sysfs / "devices/system/clocksource/clocksource0"
    clock = files.text(directory / "current_clocksource")
    if clock in _SLOW_CLOCKS:
        return warning(
            f"the clock source is {clock}, which is slow to read",
            "Find out why the kernel does not use the CPU's own clock: dmesg | grep -i tsc",
        )
    if migration is None and not clock:
        return unknown("kernel.timer_migration and the clock source are not shown", HOST_PROC)
    return ok(f"timers may migrate; the clock source is {clock or 'unknown'}")


def frequency(host: Host) -> Finding:
    """The frequency governor of isolated CPUs."""
    governors = {cpu: files.text(_file(host, settings.GOVERNOR, cpu)) for cpu in host.isolated}
    wanted = settings.GOVERNOR.value(_cpus(host))
    slow = {cpu: name for cpu, name in governors.items() if name and name != wanted}
    if slow:
        return warning(
            f"the frequency governor of CPU {render(slow)} is {some(sorted(set(slow.values())))}",
            advice.governor(Cpus(frozenset(slow), host.housekeeping)),
        )
    if not any(governors.values()):
        return ok("isolated CPUs have no frequency governor")
    return ok(f"the frequency governor of isolated CPUs is {wanted}")


def idle_states(host: Host) -> Finding:
    """The idle states that isolated CPUs may enter."""
    deep = {cpu: names for cpu in host.isolated if (names := _deep_states(host, cpu))}
    if deep and not _all_held_awake(host):
        names = sorted({name for names in deep.values() for name in names})
        return warning(
            f"CPU {render(deep)} may enter idle states with an exit latency above"
            f" {QUICK_MICROSECONDS} us: {some(names)}",
            "Limit the latency of each:"
            f" {settings.LATENCY_LIMIT.command(_cpus(host)).format(cpu='NUMBER')}",
        )
    return ok(
        f"isolated CPUs enter no idle state with an exit latency above {QUICK_MICROSECONDS} us"
    )


def huge_pages(host: Host) -> Finding:
    """Transparent huge pages: a process stops while the kernel assembles one."""
    text = files.text(host.roots.sysfs / "kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", text)
    if chosen and chosen[1] == "always":
        return warning(
            "transparent huge pages are always used: khugepaged moves the memory of owners",
            advice.HUGE_PAGES,
        )
    return ok(f"transparent huge pages: {chosen[1] if chosen else 'not in this kernel'}")


def numa_balancing(host: Host) -> Finding:
    """Automatic NUMA balancing: it causes page faults to see which memory a process uses."""
    if files.number(host.roots.proc / settings.NUMA_BALANCING.name):
        return warning(
            "automatic NUMA balancing is on: it interrupts processes with page faults",
            advice.numa_balancing(_cpus(host)),
        )
    return ok("automatic NUMA balancing is off")


def _cpus(host: Host) -> Cpus:
    return Cpus(host.isolated, host.housekeeping)


def _run(host: Host, setting: Setting) -> str:
    return f"Run: {setting.command(_cpus(host))}"


def _file(host: Host, setting: Setting, cpu: int) -> str:
    """The file of a setting in sysfs that each CPU has."""
    return f"{host.roots.sysfs}/{setting.name.format(cpu=cpu)}"


def _deep_states(host: Host, cpu: int) -> list[str]:
    """The names of a CPU's enabled idle states with a long exit latency."""
    if _held_awake(host, cpu):
        return []
    directory = f"{host.roots.sysfs}/devices/system/cpu/cpu{cpu}/cpuidle"
    return [
        files.text(f"{directory}/{state}/name") or state
        for state in files.names(directory)
        if (files.number(f"{directory}/{state}/latency") or 0) > QUICK_MICROSECONDS
        and not files.number(f"{directory}/{state}/disable")
    ]


def _held_awake(host: Host, cpu: int) -> bool:
    """Whether the CPU's latency limit (PM QoS) forbids deep idle states.

    ABI/testing/sysfs-devices-power: 0 is no limit, n/a allows no latency at all.
    """
    limit = files.text(_file(host, settings.LATENCY_LIMIT, cpu))
    return limit == "n/a" or (limit.isdecimal() and 0 < int(limit) <= QUICK_MICROSECONDS)


def _all_held_awake(host: Host) -> bool:
    """Whether a process forbids deep idle states of all CPUs, as TuneD and cyclictest do.

    power/pm_qos_interface: the file holds the lowest requested latency in us, as an int of 32
    bits. Opening it for reading requests nothing. Raises Unseen: only root can read it.
    """
    content = files.raw(host.roots.latency)
    latency = int.from_bytes(content, sys.byteorder, signed=True)
    return len(content) == 4 and latency <= QUICK_MICROSECONDS
