"""Kernel work that can be moved: unbound work queues and kernel threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import advice, files, settings
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning
from isolcpus_dp.report.check.host import HOST_SYS, Host
from isolcpus_dp.report.check.settings import Cpus

if TYPE_CHECKING:
    from isolcpus_dp.report.check.tasks import Thread


def workqueues(host: Host) -> Finding:
    """The CPUs on which unbound work queues may run."""
    file = host.roots.sysfs / settings.WORK_QUEUES.name
    text = files.text(file)
    if not text:
        return unknown(f"{file} does not exist", HOST_SYS)
    allowed = cpulist.parse_mask(text)
    if allowed & host.isolated:
        return warning(
            f"unbound kernel work may run on isolated CPU {render(allowed & host.isolated)}",
            advice.work_queues(Cpus(host.isolated, host.housekeeping), file),
        )
    return ok(f"unbound kernel work runs on CPU {render(allowed & host.machine.present)}")


def kernel_threads(host: Host) -> Finding:
    """Threads of RCU and other kernel threads that are not bound to a CPU."""
    # An interrupt's thread follows its interrupt, which has its own check.
    may_run = [
        thread
        for thread in host.kernel_threads
        if thread.allowed & host.isolated and not thread.name.startswith("irq/") and thread.movable
    ]
    move = advice.kernel_threads(host.housekeeping)
    ran = [thread for thread in may_run if thread.last_cpu in host.isolated]
    if ran:
        return problem(f"ran on isolated CPUs: {some([_named(one) for one in ran])}", move)
    if may_run:
        return warning(f"may run on isolated CPUs: {some([_named(one) for one in may_run])}", move)
    count = len(host.kernel_threads)
    return ok(f"{count} kernel threads; none that can be moved may run on isolated CPUs")


def _named(thread: Thread) -> str:
    return f"{thread.name} (process {thread.pid})"
