"""What to do about a cause: the advice that `check` gives, where a check looks at the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isolcpus_dp.host import cmdline, cpulist
from isolcpus_dp.measure.cause import names
from isolcpus_dp.measure.cause.role import Role
from isolcpus_dp.report.check import advice, boot
from isolcpus_dp.report.check.settings import Cpus

if TYPE_CHECKING:
    from isolcpus_dp.measure.cause.suspect import Suspect
    from isolcpus_dp.measure.result import Result

_FIND_THE_WORK = (
    "It is bound to the CPU that queues it. Find who does: trace-cmd record -e"
    " workqueue:workqueue_queue_work -f 'cpu == NUMBER'"
)
_STOP_THE_STATISTICS = "Run: sysctl vm.stat_interval=120"
_SECOND_THREAD = (
    "nohz_full= stops the tick only while a single thread runs and no timer is due. Run:"
    " isolcpus-dp check --only nohz-full --only timers"
)
_FIND_WHO_STOPS = (
    "The kernel runs it to move a thread whose CPUs were changed, and when modules or tracing"
    " change. Do this before the host is in use."
)
_FIRMWARE = (
    "Look for the vendor's low-latency settings in the firmware: power management, USB legacy"
    " support and memory scrubbing cause these."
)
_COOLING = (
    "Look for heat and hardware errors in the kernel's log: dmesg | grep -i -e mce -e thermal"
)
_MEMORY = "The host lacks memory: pages of the loop were read from disk again. Measure again."
_BARE_METAL = (
    "Keep the core's other threads idle (isolcpus-dp check --only smt-siblings), and look for"
    " the vendor's low-latency settings in the firmware: hwlatdetect finds its interruptions."
)
_VIRTUAL = "On the hypervisor, give each virtual CPU an isolated CPU of its own: `steal` in vmstat."


def of(suspect: Suspect, cpu: int, result: Result) -> str:
    """The advice on what disturbed a CPU; empty for a housekeeping CPU, where it belongs."""
    if cpu not in result.isolated:
        return ""
    remedy = _REMEDIES[suspect.role]
    return remedy(suspect, cpu, result)


def of_frequency(result: Result) -> str:
    return advice.governor(Cpus(result.isolated, result.housekeeping))


def of_hardware(*, virtual: bool) -> str:
    return _VIRTUAL if virtual else _BARE_METAL


def _of_tick(_: Suspect, cpu: int, result: Result) -> str:
    if cpu in boot.BOOT_CPU:
        return advice.tick_of_the_boot_cpu(result.isolated)
    return _SECOND_THREAD if cpu in _nohz_full(result) else advice.nohz_full(result.isolated)


def _of_kernel_thread(suspect: Suspect, _: int, result: Result) -> str:
    if all(names.without_number(name) == "khugepaged" for name in suspect.counts):
        return advice.HUGE_PAGES
    return advice.kernel_threads(result.housekeeping)


def _of_work(suspect: Suspect, cpu: int, result: Result) -> str:
    if suspect.counts.get("vmstat_update", 0) * 2 >= suspect.count:
        return _STOP_THE_STATISTICS
    activity = result.recording.activities[cpu]
    workers = {
        name: count
        for name, count in (activity.threads or suspect.counts).items()
        if names.thread(name) is Role.WORK
    }
    unbound = sum(count for name, count in workers.items() if names.is_unbound(name))
    if unbound * 2 > sum(workers.values()):
        return advice.work_queues(_cpus(result))
    return _FIND_THE_WORK


def _of_softirq(suspect: Suspect, cpu: int, result: Result) -> str:
    most = max(suspect.counts, key=lambda name: suspect.counts[name])
    if most in ("NET_RX", "NET_TX", "BLOCK", "IRQ_POLL"):
        return advice.interrupts(result.housekeeping)
    if most == "RCU" and cpu not in _listed(result, "rcu_nocbs") | _nohz_full(result):
        return advice.rcu_nocbs(result.isolated)
    return _of_tick(suspect, cpu, result)


def _nohz_full(result: Result) -> frozenset[int]:
    """The CPUs whose tick may stop: those of nohz_full=, and of isolcpus= with the flag nohz."""
    flags = {word for value in _values(result, "isolcpus") for word in value.split(",")}
    return _listed(result, "nohz_full") | (result.isolated if "nohz" in flags else frozenset())


def _listed(result: Result, name: str) -> frozenset[int]:
    """The CPUs of an argument on the kernel's command line; none if it is missing or invalid."""
    value = next(iter(_values(result, name)), "")
    relative = "N" in value or "all" in value.lower()
    last = max(result.isolated | result.housekeeping) if relative else cpulist.MOST_CPUS - 1
    try:
        return cpulist.parse_argument(value, last)
    except cpulist.CpuListError:
        return frozenset()


def _values(result: Result, name: str) -> list[str]:
    return [value for word, value in cmdline.split(result.arguments) if word == name]


def _cpus(result: Result) -> Cpus:
    return Cpus(result.isolated, result.housekeeping)


_REMEDIES: Mapping[Role, Callable[[Suspect, int, Result], str]] = {
    Role.PROCESS: lambda _, __, result: advice.processes(result.housekeeping),
    Role.UNNAMED: lambda _, __, result: advice.processes(result.housekeeping),
    Role.KERNEL_THREAD: _of_kernel_thread,
    Role.STOPPER: lambda *_: _FIND_WHO_STOPS,
    Role.WORK: _of_work,
    Role.DEVICE: lambda _, __, result: advice.interrupts(result.housekeeping),
    Role.NMI: lambda _, __, result: advice.watchdog(_cpus(result)),
    Role.SMI: lambda *_: _FIRMWARE,
    Role.MAJOR_FAULT: lambda *_: _MEMORY,
    Role.MINOR_FAULT: lambda _, __, result: advice.numa_balancing(_cpus(result)),
    Role.PLATFORM: lambda *_: _COOLING,
    Role.TICK: _of_tick,
    Role.IPI: lambda *_: f"{advice.FIND_SHARED_MEMORY[0].upper()}{advice.FIND_SHARED_MEMORY[1:]}.",
    Role.SOFTIRQ: _of_softirq,
}
