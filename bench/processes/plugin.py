"""The device plugin as a process: as its unit runs it, on a machine with this number of CPUs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.machine import regular
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import registered, unit_environment, unit_setting
from tests.testbed.host import RESOURCE, Host
from tests.testbed.process import memory

if TYPE_CHECKING:
    from pathlib import Path

    from isolcpus_dp.simulator.machine import Place

MEMORY = {"Pss": "proportional share", "Private_Dirty": "private (pages of its own)"}


def as_unit(host: Host, *options: str | Path) -> Supervisor:
    """The device plugin as its unit runs it; its priority only if this process is root's."""
    priority = ["nice", "-n", unit_setting("serve", "Nice")] if os.geteuid() == 0 else []
    environment = unit_environment(host, "serve")
    if "-v" in options:
        del environment["JOURNAL_STREAM"]  # so that the entries are in host.log
    command = [*priority, *host.command("serve", *options)]
    return Supervisor(command, host.directory, environment)


async def start_kubelet(host: Host) -> Kubelet:
    kubelet = Kubelet(host.kubelet_dir, host.containers)
    await kubelet.start()
    return kubelet


@contextlib.asynccontextmanager
async def registered_pids(
    host: Host, *options: str | Path, resources: Iterable[str] = (RESOURCE,)
) -> AsyncIterator[tuple[Kubelet, list[int]]]:
    """A kubelet, and the pids of the registered daemon: main process and worker."""
    kubelet = await start_kubelet(host)
    async with registered(as_unit(host, *options), kubelet) as running:
        for resource in resources:
            await kubelet.registration(resource)
        main = running.current.pid
        assert main
        yield kubelet, [main, running.workers[-1].pid]
    await kubelet.stop()


def places(cpus: int) -> tuple[Place, ...]:
    """A machine with two threads a core: up to 8 CPUs on one node, up to 128 on two, else eight."""
    nodes = 1 if cpus <= 8 else 2 if cpus <= 128 else 8
    return regular(nodes, cpus // nodes // 2, 2)


def total_memory(pids: Iterable[int]) -> dict[str, float]:
    """The memory of the processes together in MiB, by the names of `MEMORY`."""
    sizes = [memory(pid) for pid in pids]
    return {name: sum(size[name] for size in sizes) for name in MEMORY}
