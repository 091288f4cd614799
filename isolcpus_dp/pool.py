"""A Machine and a configuration make a pool: the CPUs of one resource, as devices.

Says also what the resource is called where it meets others: the endpoint's file name, the
container's environment variable. Which of the devices a container gets is for `placement`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from isolcpus_dp import cpulist
from isolcpus_dp.config import PoolConfig
from isolcpus_dp.machine import Machine


@dataclass(frozen=True)
class Device:
    """What the kubelet hands out: one isolated CPU."""

    id: str  # the CPU number in decimal
    cpus: frozenset[int]
    node: int | None
    healthy: bool


@dataclass(frozen=True)
class Pool:
    """The devices of one resource at one moment, by id, in the order of their CPUs."""

    resource_name: str
    device_nodes: str  # one of config.DEVICE_NODES
    devices: dict[str, Device]

    @property
    def endpoint(self) -> str:
        """The name of the plugin's socket in the kubelet's folder."""
        return f"{self.resource_name.replace('/', '-')}.sock"

    @property
    def environment_name(self) -> str:
        """The container's variable: the name after the slash, in capitals, the rest as `_`."""
        return re.sub("[^A-Z0-9]", "_", self.resource_name.partition("/")[2].upper())

    @property
    def unhealthy(self) -> list[str]:
        """The ids of the devices whose CPUs are offline."""
        return [device.id for device in self.devices.values() if not device.healthy]


def make(machine: Machine, config: PoolConfig) -> Pool:
    """The pool that `config` describes: the CPUs it names that are isolated and present."""
    wanted = machine.isolated if config.cpus is None else config.cpus
    return Pool(
        resource_name=config.resource_name,
        device_nodes=config.device_nodes,
        devices={
            str(cpu): Device(
                id=str(cpu),
                cpus=frozenset({cpu}),
                node=machine.cpus[cpu].node,
                healthy=machine.cpus[cpu].online,
            )
            for cpu in sorted(wanted & machine.isolated & machine.present)
        },
    )


def warnings(machine: Machine, config: PoolConfig) -> list[str]:
    """What the administrator should know about CPUs that were asked for and are not offered."""
    found = []
    if not machine.isolated:
        found.append(
            "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line"
        )
    elif config.cpus is not None and config.cpus - machine.isolated:
        cpus = cpulist.render(config.cpus - machine.isolated)
        found.append(
            f"CPU {cpus} of CPUs= is not isolated and is not offered:"
            f" isolated is {cpulist.render(machine.isolated)}"
        )
    if machine.isolated - machine.present:
        cpus = cpulist.render(machine.isolated - machine.present)
        found.append(f"CPU {cpus} is isolated but not present and is not offered")
    return found
