"""The host at one moment: its machine, its pools, and which container has which CPUs.

What cannot be seen, for want of rights or because nobody answers, is told and not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp import config, pool
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet import podresources

if TYPE_CHECKING:
    from isolcpus_dp.config import Config
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.kubelet.podresources import Allocation
    from isolcpus_dp.pool import Pool


@dataclass(frozen=True)
class Owner:
    """A container and the CPUs that it owns, of one resource."""

    allocation: Allocation
    cpus: frozenset[int]


@dataclass(frozen=True)
class Snapshot:
    """What there is to report on."""

    machine: Machine
    config: Config
    pools: tuple[Pool, ...]
    owners: tuple[Owner, ...]
    unseen: tuple[str, ...]  # sentences: what could not be seen, and why

    def allocated(self, of: Pool) -> frozenset[int] | None:
        """The CPUs of a pool that containers own; None if the kubelet could not be asked."""
        if self.unseen:
            return None
        return frozenset().union(
            *(owner.cpus for owner in self.owners if owner.allocation.resource == of.resource_name)
        )


def take(
    sysfs: Path, config_file: Path | None, kubelet_dir: Path, before: Machine | None = None
) -> Snapshot:
    """Looks at the host. Raises MachineError and ConfigError: without these there is no report.

    `before` is the machine as it was read earlier: it knows where offline CPUs were.
    """
    present = machine.read(sysfs, before)
    settings = config.load(config_file, present.last)
    pools = pool.make(present, settings)
    of = {one.resource_name: one for one in pools}
    try:
        allocations = [one for one in podresources.look(kubelet_dir) if one.resource in of]
        unseen: tuple[str, ...] = ()
    except podresources.Unseen as error:
        allocations, unseen = [], (f"who owns which CPU: {error}",)
    owners = [Owner(one, podresources.owned(of[one.resource], one)) for one in allocations]
    return Snapshot(present, settings, pools, tuple(owners), unseen)
