"""Makes pools from a Machine and a configuration: for each resource, its CPUs as devices.

Also derives the name of the container's environment variable. Which devices a container should get
is decided in `placement`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, siblings
from isolcpus_dp.pool import cores, warnings
from isolcpus_dp.pool.claims import Claims, allowed, claim
from isolcpus_dp.pool.device import Device, is_offline

if TYPE_CHECKING:
    from isolcpus_dp.config import Config, PoolConfig
    from isolcpus_dp.host.machine import Machine

__all__ = ["Claims", "Device", "Pool", "allowed", "claim", "make"]


@dataclass(frozen=True)
class Pool:
    """The devices of one resource at one moment, by id, in the order of their CPUs."""

    config: PoolConfig
    devices: Mapping[str, Device]
    warnings: tuple[str, ...] = ()  # a sentence for each group of CPUs that is not offered

    @property
    def resource_name(self) -> str:
        return self.config.resource_name

    @property
    def environment_name(self) -> str:
        """The container's variable: the name after the slash in capitals, all else as `_`."""
        return re.sub("[^A-Z0-9]", "_", self.resource_name.partition("/")[2].upper())

    @property
    def cpus(self) -> frozenset[int]:
        """All CPUs that containers may get."""
        return self.cpus_of(self.devices)

    def cpus_of(self, ids: Iterable[str]) -> frozenset[int]:
        """The CPUs that a container gets with these devices. Raises KeyError."""
        return frozenset().union(*(self.devices[device_id].cpus for device_id in ids))

    @property
    def unhealthy(self) -> list[str]:
        """The ids of the unhealthy devices."""
        return [device.id for device in self.devices.values() if not device.healthy]


def make(machine: Machine, config: Config, claimed: Claims | None = None) -> tuple[Pool, ...]:
    """The pools of the configuration, in its order, with the CPUs that they have claimed.

    Without claims, they claim now, and no device is near any CPU.
    """
    claimed = claimed or claim(machine, config, {})
    pools: list[Pool] = []
    for pool in config.pools:
        made = _make(machine, pool, claimed.of(pool), warnings.of(machine, config, pool, claimed))
        same = [other for other in pools if other.environment_name == made.environment_name]
        if same:
            made = replace(made, warnings=(*made.warnings, _same_variable(made, same[0])))
        pools.append(made)
    return tuple(pools)


def _make(
    machine: Machine, config: PoolConfig, claimed: frozenset[int], sentences: list[str]
) -> Pool:
    """The pool with those of the `claimed` CPUs that are still isolated and present."""
    isolated = claimed & machine.isolated & machine.present
    off = isolated & siblings.switched_off(machine)
    if config.granularity == "cpu":
        devices = [_cpu_device(machine, cpu) for cpu in sorted(isolated - off)]
    else:
        devices, more = cores.devices(machine, config, isolated)
        sentences += more
    if off:
        sentences.append(
            f"CPU {cpulist.render(off)} is offline because SMT is off, and is not offered until it"
            " comes online"
        )
    return Pool(
        config=config,
        devices={device.id: device for device in devices},
        warnings=tuple(sentences),
    )


def _cpu_device(machine: Machine, cpu: int) -> Device:
    own = frozenset({cpu})
    reason = "" if cpu in machine.online else is_offline(own)
    return Device(id=str(cpu), cpus=own, core=own, node=machine.cpus[cpu].node, reason=reason)


def _same_variable(pool: Pool, other: Pool) -> str:
    return (
        f"{pool.resource_name} and {other.resource_name} use the same environment variable"
        f" {pool.environment_name}: a container that requests both gets only one of them there"
    )
