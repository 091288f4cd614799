"""The table of all checks, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.report.check import (
    files,
    interrupts,
    kernel,
    kubelet,
    processes,
    runtime,
    threads,
    tuning,
)
from isolcpus_dp.report.check.finding import Finding, Verdict, unknown

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host


class UsageError(Exception):
    """A check was asked for that there is not; one sentence."""


@dataclass(frozen=True)
class Check:
    """One question about a host."""

    id: str
    looks_at: str
    run: Callable[[Host], Finding]  # raises Unseen, CpuListError, OSError, ValueError


@dataclass(frozen=True)
class Result:
    """A check and what it came to."""

    check: Check
    finding: Finding


CHECKS = (
    Check("kernel-arguments", "isolcpus= and its flags against sysfs", kernel.arguments),
    Check("nohz-full", "nohz_full= against sysfs", kernel.nohz_full),
    Check("rcu-nocbs", "rcu_nocbs= against the threads of RCU", kernel.rcu_nocbs),
    Check("smt-siblings", "cores that are isolated in part or shared", kernel.smt_siblings),
    Check("irq-affinity", "where interrupts of devices may fire", interrupts.affinity),
    Check("irq-counts", "which interrupts fire within the interval", interrupts.counts),
    Check("irqbalance", "irqbalance and what it was told", interrupts.irqbalance),
    Check("workqueues", "the CPUs of unbound work queues", threads.workqueues),
    Check("kernel-threads", "movable threads of the kernel", threads.kernel_threads),
    Check("foreign-processes", "who may run on CPUs of others", processes.foreign),
    Check("watchdog", "the CPUs that the kernel's watchdog interrupts", tuning.watchdog),
    Check("timers", "migration of timers, and the clock", tuning.timers),
    Check("cpu-frequency", "the frequency governor", tuning.frequency),
    Check("idle-states", "idle states that take long to leave", tuning.idle_states),
    Check("huge-pages", "transparent huge pages", tuning.huge_pages),
    Check("numa-balancing", "automatic NUMA balancing", tuning.numa_balancing),
    Check("reserved-cpus", "the kubelet's reservedSystemCPUs", kubelet.reserved_cpus),
    Check("cpu-manager", "the kubelet's CPU manager and its state file", kubelet.cpu_manager),
    Check("topology-manager", "the kubelet's topology manager", kubelet.topology_manager),
    Check("cpu-quota", "CPU quotas of the cgroups of owners", runtime.cpu_quota),
    Check("nri", "the container runtime's interface for plugins", runtime.nri),
    Check("pin-daemon", "isolcpus-dp-pin and its connection", runtime.pin_daemon),
    Check("versions", "whether the daemons run what is installed", runtime.versions),
)

_BY_BADNESS = list(Verdict)


def run(host: Host, only: Sequence[str]) -> list[Result]:
    """Runs the checks of these ids, or all. Raises UsageError."""
    return [Result(check, look(check, host)) for check in _chosen(host, only)]


def worst(results: Sequence[Result]) -> Verdict:
    """The worst of all verdicts."""
    verdicts = [result.finding.verdict for result in results]
    return max(verdicts, key=_BY_BADNESS.index, default=Verdict.OK)


def look(check: Check, host: Host) -> Finding:
    """Runs one check; what it cannot see is a finding, too.

    What others chose to call themselves, or wrote somewhere, does nothing to a terminal.
    """
    found = _look(check, host)
    return replace(
        found, evidence=files.printable(found.evidence), advice=files.printable(found.advice)
    )


def _look(check: Check, host: Host) -> Finding:
    try:
        return check.run(host)
    except files.Unseen as unseen:
        return unknown(str(unseen))
    except cpulist.CpuListError as error:
        return unknown(f"a list of CPUs cannot be understood: {error}", "Mend what names it.")
    except (OSError, ValueError) as error:
        # What the kernel and others write is theirs to change: the other checks go on.
        return unknown(f"what is there cannot be understood: {error}")


def _chosen(host: Host, only: Sequence[str]) -> list[Check]:
    ids = [check.id for check in CHECKS]
    strange = [name for name in only if name not in ids]
    if strange:
        raise UsageError(f"--only {strange[0]} is no check: there are {', '.join(ids)}")
    if host.interval == 0 and "irq-counts" in only:
        raise UsageError("--only irq-counts takes an --interval above 0")
    wanted = [check for check in CHECKS if not only or check.id in only]
    return [check for check in wanted if check.id != "irq-counts" or host.interval > 0]
