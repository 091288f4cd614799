"""The simulated kubelet's device manager: registered resources and allocations."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from isolcpus_dp.simulator import topology
from isolcpus_dp.simulator.devices import Checkpoint, Entry, by_node, choose

if TYPE_CHECKING:
    from isolcpus_dp.simulator.plugins import Plugin


class Cause(enum.Enum):
    """Why a pod was not admitted."""

    NOT_REPORTED = "a resource was not registered and reported in time"
    UNHEALTHY = "devices are unhealthy"
    OTHER = "another error"


class AdmissionError(Exception):
    """A pod cannot get its devices. The message is the kubelet's, which may fit two causes."""

    def __init__(self, message: str, cause: Cause) -> None:
        super().__init__(message)
        self.cause = cause


class DeviceManager:
    """Owns the registered plugins, by resource, and the checkpoint of allocations."""

    def __init__(self, checkpoint: Path) -> None:
        self.plugins: dict[str, Plugin] = {}
        self._path = checkpoint
        self.read_checkpoint()

    def read_checkpoint(self) -> None:
        """Reads the checkpoint of the previous kubelet."""
        self.checkpoint = Checkpoint(self._path)

    def held_by(self, pod_name: str, resource: str) -> frozenset[str]:
        """The ids of the devices that a pod holds."""
        entry = self.checkpoint.of_pod(pod_name).get(resource)
        return entry.ids if entry else frozenset()

    def allocatable(self, resource: str) -> int:
        """The number of devices of a resource that the node status shows as allocatable."""
        plugin = self.plugins.get(resource)
        return len(plugin.healthy) if plugin else 0

    def is_reported(self, resource: str) -> bool:
        """Whether the plugin of a resource is registered and has sent its devices."""
        plugin = self.plugins.get(resource)
        return plugin is not None and plugin.reported is not None

    def node_status(self) -> dict[str, object]:
        """Capacity and allocatable, as the API server would get them, and each device."""
        # A resource of the previous kubelet has no devices until it is registered again.
        known = [*self.plugins, *(self.checkpoint.registered.keys() - self.plugins.keys())]
        return {
            "capacity": {
                name: len(self.plugins[name].devices) if name in self.plugins else 0
                for name in known
            },
            "allocatable": {name: self.allocatable(name) for name in known},
            "devices": {
                name: {
                    device_id: [device.health, *(node.ID for node in device.topology.nodes)]
                    for device_id, device in plugin.devices.items()
                }
                for name, plugin in self.plugins.items()
            },
        }

    def wishes(self, pod_name: str, requests: Mapping[str, int]) -> topology.Wishes:
        """By resource that a pod still needs: the free devices, and the number it needs."""
        return {
            resource: (self.plugins[resource].nodes(self._free(resource)), size)
            for resource, size in requests.items()
            if resource in self.plugins and not self.held_by(pod_name, resource)
        }

    def _is_known(self, resource: str) -> bool:
        """Whether a plugin has registered a resource, now or before an earlier kubelet ended."""
        return resource in self.checkpoint.registered or bool(self.checkpoint.held(resource))

    def _free(self, resource: str) -> frozenset[str]:
        return self.plugins[resource].healthy - self.checkpoint.held(resource)

    async def allocate(self, pod_name: str, resource: str, size: int, node: int | None) -> None:
        """Gives devices to a pod, on the topology manager's NUMA node if `node` is not None.

        A pod that holds devices keeps them if they are healthy. Of a resource that no plugin has
        ever registered, a pod gets nothing, and no error, as in the kubelet's
        isDevicePluginResource(). Raises AdmissionError.
        """
        if not self._is_known(resource):
            return
        if resource not in self.checkpoint.registered:
            raise AdmissionError(
                f"cannot allocate unregistered device {resource}", Cause.NOT_REPORTED
            )
        plugin = self.plugins.get(resource)
        if plugin is None or not plugin.healthy:
            raise AdmissionError(
                f"no healthy devices present; cannot allocate unhealthy devices {resource}",
                Cause.UNHEALTHY if self.is_reported(resource) else Cause.NOT_REPORTED,
            )
        held = self.held_by(pod_name, resource)
        if not held <= plugin.healthy:
            raise AdmissionError(
                "previously allocated devices are no longer healthy;"
                f" cannot allocate unhealthy devices {resource}",
                Cause.UNHEALTHY,
            )
        if held:
            return  # the answer in the checkpoint is reused
        free = self._free(resource)
        if len(free) < size:
            raise AdmissionError(
                f"requested number of devices unavailable for {resource}."
                f" Requested: {size}, Available: {len(free)}",
                Cause.OTHER,
            )
        prefer = plugin.prefer if plugin.gives_preferences else None
        try:
            ids = await choose(free, size, prefer, topology.aligned(plugin.nodes(free), node))
        except grpc.aio.AioRpcError as error:
            raise _failed("GetPreferredAllocation", error) from error
        try:
            answer = await plugin.allocate(ids)
        except grpc.aio.AioRpcError as error:
            raise _failed("Allocate", error) from error
        self.checkpoint.allocate(pod_name, Entry(resource, by_node(plugin.nodes(ids)), answer))


def _failed(call: str, error: grpc.aio.AioRpcError) -> AdmissionError:
    return AdmissionError(
        f"{call} failed due to rpc error: code = {error.code().name} desc = {error.details()}",
        Cause.OTHER,
    )
