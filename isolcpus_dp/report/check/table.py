"""The table of all checks, and the function that runs them."""

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
    order,
    processes,
    runtime,
    static_pods,
    threads,
    tuning,
)
from isolcpus_dp.report.check.finding import Finding, Verdict, unknown
from isolcpus_dp.report.check.start import table as start_table

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host


class UsageError(Exception):
    """A check that does not exist or cannot run was requested; the message is one sentence."""


@dataclass(frozen=True)
class Check:
    """One question about a host."""

    id: str
    looks_at: str
    run: Callable[[Host], Finding]  # raises Unseen, CpuListError, OSError, ValueError


@dataclass(frozen=True)
class Result:
    """A check and its finding."""

    check: Check
    finding: Finding


CHECKS = (
    Check("kernel-arguments", "isolcpus= and its flags against sysfs", kernel.arguments),
    Check("nohz-full", "nohz_full= against sysfs", kernel.nohz_full),
    Check("rcu-nocbs", "rcu_nocbs= against the RCU threads", kernel.rcu_nocbs),
    Check("smt-siblings", "cores that are partly isolated or shared", kernel.smt_siblings),
    Check("irq-affinity", "the CPUs of device interrupts", interrupts.affinity),
    Check("irq-counts", "interrupts that fire during the interval", interrupts.counts),
    Check("irqbalance", "irqbalance and its banned CPUs", interrupts.irqbalance),
    Check("workqueues", "the CPUs of unbound work queues", threads.workqueues),
    Check("kernel-threads", "kernel threads that can be moved", threads.kernel_threads),
    Check("foreign-processes", "processes on CPUs they do not own", processes.foreign),
    Check("watchdog", "the CPUs of the kernel's watchdog", tuning.watchdog),
    Check("timers", "timer migration and the clock source", tuning.timers),
    Check("cpu-frequency", "the frequency governor", tuning.frequency),
    Check("idle-states", "idle states with a long exit latency", tuning.idle_states),
    Check("huge-pages", "transparent huge pages", tuning.huge_pages),
    Check("numa-balancing", "automatic NUMA balancing", tuning.numa_balancing),
    Check("reserved-cpus", "the kubelet's reservedSystemCPUs", kubelet.reserved_cpus),
    Check("cpu-manager", "the kubelet's CPU manager and its state file", kubelet.cpu_manager),
    Check("topology-manager", "the kubelet's topology manager", kubelet.topology_manager),
    Check("kubelet-start", "settings with which the kubelet does not start", start_table.start),
    Check("static-pods", "the CPUs that static pods request and hold", static_pods.devices),
    Check("unit-order", "whether the plugin is started in time at boot", order.unit_order),
    Check("cpu-quota", "CPU quotas of the owners' cgroups", runtime.cpu_quota),
    Check("nri", "the container runtime's plugin interface", runtime.nri),
    Check("pin-daemon", "isolcpus-dp-pin and its connection", runtime.pin_daemon),
    Check("versions", "the version and configuration of the daemons", runtime.versions),
)

_BY_BADNESS = list(Verdict)


def run(host: Host, only: Sequence[str]) -> list[Result]:
    """Runs the checks with these ids, or all checks. Raises UsageError."""
    return [Result(check, look(check, host)) for check in _chosen(host, only)]


def worst(results: Sequence[Result]) -> Verdict:
    """The worst verdict; OK if there are no results."""
    verdicts = [result.finding.verdict for result in results]
    return max(verdicts, key=_BY_BADNESS.index, default=Verdict.OK)


def look(check: Check, host: Host) -> Finding:
    """Runs one check; if it cannot read what it needs, the finding is UNKNOWN.

    Names that other processes chose cannot send control characters to the terminal.
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
        return unknown(
            f"invalid CPU list: {error}", "Correct the file or argument that contains it."
        )
    except (OSError, ValueError) as error:
        # Formats of other programs may change; the other checks still run.
        return unknown(f"unexpected content: {error}")


def _chosen(host: Host, only: Sequence[str]) -> list[Check]:
    ids = [check.id for check in CHECKS]
    unknown_ids = [name for name in only if name not in ids]
    if unknown_ids:
        raise UsageError(f"--only {unknown_ids[0]}: no such check; use one of {', '.join(ids)}")
    if host.interval == 0 and "irq-counts" in only:
        raise UsageError("--only irq-counts needs an --interval above 0")
    wanted = [check for check in CHECKS if not only or check.id in only]
    return [check for check in wanted if check.id != "irq-counts" or host.interval > 0]
