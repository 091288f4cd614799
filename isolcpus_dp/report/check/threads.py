"""The kernel's own work that somebody can move: unbound work queues and kernel threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host
    from isolcpus_dp.report.check.tasks import Thread


def workqueues(host: Host) -> Finding:
    """Where the work of unbound queues may run."""
    file = host.roots.sysfs / "devices/virtual/workqueue/cpumask"
    said = files.text(file)
    if not said:
        return unknown(f"there is no {file}", "Look where sysfs is the host's.")
    allowed = cpulist.parse_mask(said)
    if allowed & host.isolated:
        mask = sum(1 << cpu for cpu in host.housekeeping)
        return warning(
            f"unbound work of the kernel may run on CPU {render(allowed & host.isolated)}",
            f"echo {_kernel_mask(mask)} > {file}; nohz_full= does so when the kernel boots.",
        )
    return ok(f"unbound work runs on CPU {render(allowed & host.machine.present)}")


def kernel_threads(host: Host) -> Finding:
    """RCU's and other threads of the kernel that are not bound to a CPU."""
    # An interrupt's thread follows its interrupt, which has a check of its own.
    may = [
        thread
        for thread in host.kernel_threads
        if thread.allowed & host.isolated and not thread.name.startswith("irq/") and thread.movable
    ]
    advice = (
        f"Move each: taskset -pc {render(host.housekeeping)} PID. Booting with nohz_full= keeps"
        " most of them off from the start."
    )
    ran = [thread for thread in may if thread.last_cpu in host.isolated]
    if ran:
        return problem(f"ran on an isolated CPU: {some([_told(one) for one in ran])}", advice)
    if may:
        return warning(f"may run on isolated CPUs: {some([_told(one) for one in may])}", advice)
    count = len(host.kernel_threads)
    return ok(f"{count} threads of the kernel, none that is movable on isolated CPUs")


def _told(thread: Thread) -> str:
    return f"{thread.name} (process {thread.pid})"


def _kernel_mask(mask: int) -> str:
    """The mask as the kernel takes it: hexadecimal, a comma before every eighth digit."""
    digits = f"{mask:x}"
    first = len(digits) % 8
    groups = [digits[start : start + 8] for start in range(first, len(digits), 8)]
    return ",".join([digits[:first], *groups] if first else groups)
