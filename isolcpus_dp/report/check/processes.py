"""User processes on isolated CPUs that they do not own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import advice
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.containers import Container
    from isolcpus_dp.report.check.host import Host
    from isolcpus_dp.report.check.tasks import Thread


# A sandbox uses less processor time than this, also on a slow host: a second, in ticks of 10 ms.
_SANDBOX_TICKS = 100


@dataclass(frozen=True)
class _Foreign:
    """A thread and the isolated CPUs on which it may run without owning them."""

    thread: Thread
    container: Container | None
    cpus: frozenset[int]

    def __str__(self) -> str:
        container = f" in {self.container}" if self.container else ""
        cpus = f"allowed on CPU {render(self.cpus)}"
        return f"{self.thread.name} (process {self.thread.pid}){container}, {cpus}"


def _is_sandbox(thread: Thread) -> bool:
    """Whether a thread of a container without a log link is a pod's sandbox, which only sleeps.

    A pod with a very long name has no log link with the id of its container, and any process can
    take the name. It cannot work without using processor time.
    """
    return thread.name == "pause" and thread.ticks < _SANDBOX_TICKS


def foreign(host: Host) -> Finding:
    """Processes that may run, or last ran, on isolated CPUs that they do not own."""
    found = [one for one in _foreign(host) if one.container is None or not host.owners_unseen]
    ran = [one for one in found if one.thread.last_cpu in one.cpus]
    remedy = advice.processes(host.housekeeping)
    if ran:
        return problem(f"ran on isolated CPUs: {some(_one_per_process(ran))}", remedy)
    if found:
        return warning(f"may run on isolated CPUs: {some(_one_per_process(found))}", remedy)
    if host.owners_unseen and any(True for _ in _foreign(host)):
        return unknown(
            "containers may run on isolated CPUs, and it is unknown whether they own them:"
            f" {host.owners_unseen}",
            "Run the check as root while the kubelet is running.",
        )
    return ok("only owners may run on isolated CPUs")


def _one_per_process(found: list[_Foreign]) -> list[_Foreign]:
    """The first thread of each process."""
    return list({one.thread.pid: one for one in reversed(found)}.values())[::-1]


def _foreign(host: Host) -> Iterator[_Foreign]:
    owned = {} if host.snapshot.unseen else host.owned
    for thread in host.user_threads:
        if not thread.allowed & host.isolated:
            continue
        container = host.container(thread.pid)
        if container and container.name is None and _is_sandbox(thread):
            continue
        own = owned.get(container.name, frozenset()) if container and container.name else set()
        cpus = (thread.allowed & host.isolated).difference(own)
        if cpus:
            yield _Foreign(thread, container, cpus)
