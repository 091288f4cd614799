"""User processes on isolated CPUs that do not own them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.containers import Container
    from isolcpus_dp.report.check.host import Host
    from isolcpus_dp.report.check.tasks import Thread


@dataclass(frozen=True)
class _Foreign:
    """A thread and the CPUs on which it may run and that others own, or nobody."""

    thread: Thread
    container: Container | None
    cpus: frozenset[int]

    def __str__(self) -> str:
        of = f" of {self.container}" if self.container else ""
        return f"{self.thread.name} (process {self.thread.pid}){of} on CPU {render(self.cpus)}"


def foreign(host: Host) -> Finding:
    """Processes that are allowed, or ran last, on isolated CPUs of others."""
    found = [one for one in _foreign(host) if one.container is None or not host.owners_unseen]
    ran = [one for one in found if one.thread.last_cpu in one.cpus]
    advice = (
        "A container: let isolcpus-dp-pin run, it keeps others off. A process of the host:"
        f" taskset -apc {render(host.housekeeping)} PID, and mend what set its CPUs"
        " (CPUAffinity= of its unit)."
    )
    if ran:
        return problem(f"ran on isolated CPUs: {some(_told(ran))}", advice)
    if found:
        return warning(f"may run on isolated CPUs: {some(_told(found))}", advice)
    if host.owners_unseen and any(True for _ in _foreign(host)):
        return unknown(
            f"containers run on isolated CPUs, and it is not seen whether they own them:"
            f" {host.owners_unseen}",
            "Check as root, while the kubelet runs.",
        )
    return ok("nobody but owners may run on isolated CPUs")


def _told(found: list[_Foreign]) -> list[_Foreign]:
    """One for each process, however many threads it has: the first."""
    return list({one.thread.pid: one for one in reversed(found)}.values())[::-1]


def _foreign(host: Host) -> Iterator[_Foreign]:
    owned = {} if host.snapshot.unseen else host.owned
    for thread in host.user_threads:
        if not thread.allowed & host.isolated:
            continue
        container = host.container(thread.pid)
        if container and container.name is None and thread.name == "pause":
            continue  # a pod's sandbox, which only sleeps, and which no plugin of NRI can pin
        own = owned.get(container.name, frozenset()) if container and container.name else set()
        cpus = (thread.allowed & host.isolated).difference(own)
        if cpus:
            yield _Foreign(thread, container, cpus)
