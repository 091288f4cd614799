"""One resource of the daemon: its pool, plugin, socket and registration."""

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
    from isolcpus_dp.pool import Device, Pool

log = logging.getLogger(__name__)


class State(enum.Enum):
    """The state of a resource's registration; the value is its text in the daemon's STATUS."""

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
        """`directory` has the sockets of the kubelet and its plugins."""
        self.name = pool.resource_name
        self.plugin = DevicePlugin(machine, pool, device_nodes, on_allocate)
        self.endpoint = Endpoint(directory / pool.config.endpoint, self.plugin)
        self.state = State.WAITING
        self._refusal = ""  # the kubelet's error

    def announce(self) -> None:
        """Logs what is offered, and why it is less than what is configured."""
        emit(
            log, Event.STARTED, "offering CPU %s as %s",
            cpulist.render(self.cpus) or "(none)", self.name, resource=self.name, cpus=self.cpus,
        )  # fmt: skip
        _warn(self.plugin.pool, known=())
        for device in self.plugin.pool.devices.values():
            if not device.healthy:
                emit(
                    log, Event.POOL_WARNING, _named(device, _health(device)),
                    resource=self.name, cpus=device.core,
                )  # fmt: skip

    def register(self) -> None:
        """Records that the kubelet has accepted the registration."""
        self.state = State.REGISTERED

    def refuse(self, reason: str) -> bool:
        """Records that the kubelet has rejected the registration; whether the reason is new."""
        before, self._refusal = self._refusal, reason
        self.state = State.REFUSED
        return reason != before

    def offer(self, machine: Machine, pool: Pool) -> bool:
        """Offers the new pool; returns whether its devices differ from the earlier ones."""
        before = self.plugin.pool
        self.plugin.publish(machine, pool)
        _warn(pool, before.warnings)
        _log_changes(before, pool, is_registered=self.state is State.REGISTERED)
        return pool.devices != before.devices

    @property
    def cpus(self) -> frozenset[int]:
        """The CPUs that are offered."""
        return self.plugin.pool.cpus

    @property
    def summary(self) -> str:
        """The name and the number of devices, as text."""
        pool = self.plugin.pool
        return f"{self.name}: {len(pool.devices)} devices, {len(pool.unhealthy)} unhealthy"

    @property
    def outcome(self) -> str:
        """Its text in STATUS: the kubelet's error after a rejection, else the summary."""
        return self._refusal if self.state is State.REFUSED else self.summary


def status(resources: Iterable[Resource]) -> str:
    """The daemon's STATUS: its resources by state, in one line."""
    outcomes = {state: [one.outcome for one in resources if one.state is state] for state in State}
    return ". ".join(
        f"{state.value} {'; '.join(texts)}" for state, texts in outcomes.items() if texts
    )


def _warn(pool: Pool, known: Iterable[str]) -> None:
    """Logs the pool's warnings, except those that are known."""
    for warning in pool.warnings:
        if warning not in known:
            emit(log, Event.POOL_WARNING, warning, resource=pool.resource_name)


def _log_changes(before: Pool, now: Pool, *, is_registered: bool) -> None:
    """Logs the devices that were added or removed, or changed their health."""
    for device_id in sorted({*before.devices, *now.devices}, key=int):
        device, earlier = now.devices.get(device_id), before.devices.get(device_id)
        if device == earlier:
            continue
        if device is None:
            device, change = before.devices[device_id], "is no longer offered"
        else:
            change = _change(earlier, device)
        emit(
            log, Event.DEVICES_CHANGED, "%s%s", _named(device, change),
            "; reported to the kubelet" if is_registered else "",
            resource=now.resource_name, cpus=device.core,
        )  # fmt: skip


def _change(earlier: Device | None, device: Device) -> str:
    """What has become of a device."""
    if earlier and earlier.healthy and device.healthy and earlier.core == device.core:
        return f"is offered as CPU {cpulist.render(device.cpus)}"  # IncompleteCores=offer
    return _health(device)


def _health(device: Device) -> str:
    """Whether a device is healthy, and why not."""
    if device.healthy:
        return "is online"
    # A single CPU has no other reason.
    return "is offline" if len(device.core) == 1 else f"is unhealthy: {device.reason}"


def _named(device: Device, predicate: str) -> str:
    """A sentence about a device."""
    return f"{'CPU' if len(device.core) == 1 else 'core'} {cpulist.render(device.core)} {predicate}"
