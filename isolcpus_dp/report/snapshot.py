"""The host at one moment: its machine, its pools, and which container has which CPUs.

What cannot be read, without root or without an answer of the kubelet, is listed in `unseen`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp import config, pool
from isolcpus_dp.host import devices, machine
from isolcpus_dp.kubelet import paths, podresources, root

if TYPE_CHECKING:
    from isolcpus_dp.config import Config
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.kubelet.podresources import Allocation
    from isolcpus_dp.pool import Pool


@dataclass(frozen=True)
class Owner:
    """A container and the CPUs of one resource that it owns."""

    allocation: Allocation
    cpus: frozenset[int]


@dataclass(frozen=True)
class Snapshot:
    """The facts that status, map and check report."""

    machine: Machine
    config: Config
    pools: tuple[Pool, ...]
    owners: tuple[Owner, ...]
    unseen: tuple[str, ...]  # one sentence for each fact that could not be read, with the reason
    # namespace/pod/container, of all containers that the kubelet lists.
    containers: frozenset[str] = frozenset()
    kubelet_root: Path = paths.DEFAULT_DIRECTORY

    def allocated(self, pool: Pool) -> frozenset[int] | None:
        """The CPUs of a pool that containers own; None if the kubelet could not be asked."""
        if self.unseen:
            return None
        return frozenset().union(
            *(
                owner.cpus
                for owner in self.owners
                if owner.allocation.resource == pool.resource_name
            )
        )


def take(
    sysfs: Path, config_file: Path | None, kubelet_dir: Path, before: Machine | None = None
) -> Snapshot:
    """Reads the host. Raises MachineError and ConfigError.

    `before` is an earlier reading of the machine: it has the topology of CPUs that are now offline.
    """
    present = machine.read(sysfs, before)
    settings = config.load(config_file, present.last)
    near = devices.locate(sysfs, settings.devices)
    pools = pool.make(present, settings, pool.claim(present, settings, near))
    by_resource = {one.resource_name: one for one in pools}
    kubelet_root = root.find(kubelet_dir, settings.kubelet.root)
    try:
        listing, unseen = podresources.look(kubelet_root), tuple[str, ...]()
    except podresources.Unseen as error:
        listing, unseen = podresources.Listing(frozenset(), ()), (f"CPU owners: {error}",)
    owners = [
        Owner(one, podresources.owned(by_resource[one.resource], one))
        for one in listing.allocations
        if one.resource in by_resource
    ]
    return Snapshot(
        present, settings, pools, tuple(owners), unseen, listing.containers, kubelet_root
    )
