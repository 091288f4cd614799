"""One resource of the daemon: its pool, the plugin and socket that serve it, its registration."""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.kubelet.endpoint import Endpoint
from isolcpus_dp.kubelet.plugin import DevicePlugin, OnAllocate
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.host.sockets import Identity
    from isolcpus_dp.pool import Pool

log = logging.getLogger(__name__)


class State(enum.Enum):
    """How far a resource's registration is, in the words of the daemon's STATUS."""

    WAITING = "Waiting for the kubelet to register"
    REFUSED = "Rejected by the kubelet:"
    REGISTERED = "Registered"


class Resource:
    """A pool that is offered to the kubelet."""

    def __init__(
        self,
        machine: Machine,
        pool: Pool,
        directory: Path,
        device_nodes: Callable[[Iterable[int]], list[Path]],
        on_allocate: OnAllocate,
    ) -> None:
        """`directory` is where the kubelet and its plugins have their sockets."""
        self.name = pool.resource_name
        self.plugin = DevicePlugin(machine, pool, device_nodes, on_allocate)
        self.endpoint = Endpoint(directory / pool.config.endpoint, self.plugin)
        self.state = State.WAITING
        self.kubelet: Identity | None = None  # the socket it is registered with
        self._refusal = ""  # in the kubelet's words
        _warn(pool, known=())

    def register(self, kubelet: Identity) -> None:
        """Notes that the kubelet with that socket has accepted the registration."""
        self.state, self.kubelet = State.REGISTERED, kubelet

    def refuse(self, reason: str) -> None:
        """Notes that the kubelet rejected the registration."""
        # In one line, whatever the kubelet said: each line tells systemd something else.
        self.state, self._refusal = State.REFUSED, " ".join(reason.split())

    def offer(self, machine: Machine, pool: Pool) -> bool:
        """Offers the pool as it is now; whether its devices differ from those before."""
        before = self.plugin.pool
        self.plugin.publish(machine, pool)
        _warn(pool, before.warnings)
        _log_changes(before, pool)
        return pool.devices != before.devices

    @property
    def cpus(self) -> frozenset[int]:
        """The CPUs that are offered."""
        return self.plugin.pool.cpus

    @property
    def summary(self) -> str:
        """The resource and the number of its devices, in words."""
        pool = self.plugin.pool
        return f"{self.name}: {len(pool.devices)} devices, {len(pool.unhealthy)} unhealthy"

    @property
    def outcome(self) -> str:
        """What STATUS says of it: the kubelet's words if it was refused."""
        return self._refusal if self.state is State.REFUSED else self.summary


def status(resources: Iterable[Resource]) -> str:
    """The daemon's STATUS: its resources by state, in one line."""
    by_state = {state: [one.outcome for one in resources if one.state is state] for state in State}
    return ". ".join(f"{state.value} {'; '.join(told)}" for state, told in by_state.items() if told)


def _warn(pool: Pool, known: Iterable[str]) -> None:
    """Warns of CPUs that are not offered, unless that is known."""
    for warning in pool.warnings:
        if warning not in known:
            emit(log, Event.POOL_WARNING, warning, resource=pool.resource_name)


def _log_changes(before: Pool, now: Pool) -> None:
    """Tells which devices of a resource came, went, or changed their health."""
    for device_id in sorted({*before.devices, *now.devices}, key=int):
        device, change = now.devices.get(device_id), ""
        if device == before.devices.get(device_id):
            continue
        if device is None:
            device, change = before.devices[device_id], "is gone"
        elif device.healthy:
            change = "is online"
        else:
            change = "is offline" if len(device.core) == 1 else "is partly offline"
        emit(
            log, Event.DEVICES_CHANGED, "%s %s %s; reported to the kubelet",
            "CPU" if len(device.core) == 1 else "core", cpulist.render(device.core), change,
            resource=now.resource_name, cpus=device.core,
        )  # fmt: skip
