"""The DevicePlugin gRPC service over a pool: the answers to the kubelet's calls.

`endpoint` has the socket; `daemon` decides when to register and when to end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from isolcpus_dp import placement
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.host import cpulist
from isolcpus_dp.host.machine import Machine, cpuid_device_node
from isolcpus_dp.kubelet.registration import OPTIONS
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.pool import Device, Pool

    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

# Called for each answer to Allocate with the resource, ok or refused, and the seconds it took.
OnAllocate = Callable[[str, str, float], None]


class _Refusal(Exception):
    """A call that is refused: the gRPC status, and one sentence with the reason."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Stream:
    """The events of the kubelet's ListAndWatch stream: it gets the devices, and ends once."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()  # the first list was sent, or it ended before
        self.ended = asyncio.Event()


class DevicePlugin(rpc.DevicePluginServicer):
    """Answers the kubelet from a machine and its pool.

    `device_nodes` returns those cpuid device nodes of the given CPUs that exist on the host.
    """

    def __init__(
        self,
        machine: Machine,
        pool: Pool,
        device_nodes: Callable[[Iterable[int]], list[Path]],
        on_allocate: OnAllocate = lambda resource, result, seconds: None,
    ) -> None:
        self.machine = machine
        self.pool = pool
        self._device_nodes = device_nodes
        self._on_allocate = on_allocate
        self._changed = asyncio.Event()
        self._expected: Stream | None = None
        # Made in advance: the kubelet may be about to admit pods when it asks for it.
        self._message = _device_list(pool.devices.values())

    def publish(self, machine: Machine, pool: Pool) -> None:
        """Replaces machine and pool; open streams send a message if the devices differ."""
        self.machine, self.pool = machine, pool
        self._message = _device_list(pool.devices.values())
        self._changed.set()
        self._changed = asyncio.Event()

    def expect_kubelet(self) -> Stream:
        """The next ListAndWatch stream, which the kubelet opens after the registration."""
        self._expected = Stream()
        return self._expected

    async def GetDevicePluginOptions(
        self, request: api.Empty, context: Context
    ) -> api.DevicePluginOptions:
        return OPTIONS

    async def ListAndWatch(
        self, request: api.Empty, context: Context
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        stream, self._expected = self._expected or Stream(), None
        sent = None
        try:
            while True:
                changed = self._changed
                if self._message != sent:
                    sent = self._message
                    yield sent
                    stream.opened.set()
                await changed.wait()
        finally:
            stream.ended.set()
            stream.opened.set()

    async def GetPreferredAllocation(
        self, request: api.PreferredAllocationRequest, context: Context
    ) -> api.PreferredAllocationResponse:
        try:
            return api.PreferredAllocationResponse(
                container_responses=[self._prefer(one) for one in request.container_requests]
            )
        except _Refusal as refusal:
            self._log_refusal("GetPreferredAllocation", refusal)
            await context.abort(refusal.code, str(refusal))
            raise AssertionError("abort() does not return") from refusal

    async def Allocate(
        self, request: api.AllocateRequest, context: Context
    ) -> api.AllocateResponse:
        start = time.perf_counter()
        try:
            requested = [list(one.devices_ids) for one in request.container_requests]
            _check_once([device_id for ids in requested for device_id in ids])
            granted = [self._allocatable(ids) for ids in requested]
        except _Refusal as refusal:
            self._log_refusal("Allocate", refusal)
            self._on_allocate(self.pool.resource_name, "refused", time.perf_counter() - start)
            await context.abort(refusal.code, str(refusal))
            raise AssertionError("abort() does not return") from refusal
        answer = api.AllocateResponse(container_responses=[self._grant(cpus) for cpus in granted])
        self._on_allocate(self.pool.resource_name, "ok", time.perf_counter() - start)
        return answer

    async def PreStartContainer(
        self, request: api.PreStartContainerRequest, context: Context
    ) -> api.PreStartContainerResponse:
        return api.PreStartContainerResponse()

    def _prefer(
        self, request: api.ContainerPreferredAllocationRequest
    ) -> api.ContainerPreferredAllocationResponse:
        """The best of the available devices that a container can have now.

        If these are too few, it is all of them. The kubelet then adds any others, and Allocate
        refuses them with the reason, unless their CPUs have come online meanwhile.
        """
        available, must = list(request.available_deviceIDs), list(request.must_include_deviceIDs)
        _check_once(available)
        _check_once(must)
        self._check_healthy(must)
        if not set(must) <= set(available):
            missing = ", ".join(device_id for device_id in must if device_id not in available)
            raise _invalid(f"device {missing} must be included but is not available")
        size = request.allocation_size
        if not max(1, len(must)) <= size <= len(available):
            raise _invalid(
                f"{size} devices requested, of {len(available)} available"
                f" with {len(must)} that must be included"
            )
        # The kubelet's list may be older than the pool.
        devices = self.pool.devices
        usable = [one for one in available if one in devices and devices[one].healthy]
        if size >= len(usable):
            return api.ContainerPreferredAllocationResponse(deviceIDs=sorted(usable, key=int))
        # A core that is one device is placed as if its lowest thread were the whole core.
        machine = self.machine
        if self.pool.config.granularity == "core":
            machine = machine.with_separate_cores(map(int, usable))
        cpus = placement.choose(
            machine,
            frozenset(map(int, usable)),
            frozenset(map(int, must)),
            size,
            self.pool.config.placement,
        )
        return api.ContainerPreferredAllocationResponse(deviceIDs=map(str, sorted(cpus)))

    def _allocatable(self, ids: Sequence[str]) -> frozenset[int]:
        """The CPUs of the devices. Raises _Refusal if a container cannot have them now."""
        if not ids:
            raise _invalid("a container requests no device")
        self._check_healthy(ids)
        return self.pool.cpus_of(ids)

    def _grant(self, cpus: frozenset[int]) -> api.ContainerAllocateResponse:
        """The environment, annotation and device nodes of a container that gets these CPUs."""
        text = cpulist.render(cpus)
        resource = self.pool.resource_name
        emit(
            log, Event.ALLOCATED, "allocated CPU %s of %s", text, resource,
            resource=resource, cpus=cpus,
        )  # fmt: skip
        return api.ContainerAllocateResponse(
            envs={self.pool.environment_name: text},
            annotations={resource: text},
            devices=[
                api.DeviceSpec(container_path=str(node), host_path=str(node), permissions="r")
                for node in self._nodes(cpus)
            ],
        )

    def _nodes(self, cpus: frozenset[int]) -> list[Path]:
        if self.pool.config.device_nodes == "no":
            return []
        if self.pool.config.device_nodes == "yes":
            return [cpuid_device_node(cpu) for cpu in sorted(cpus)]
        return self._device_nodes(cpus)

    def _check_healthy(self, ids: Sequence[str]) -> None:
        """Raises _Refusal if the pool does not have one of the devices, or if it is unhealthy."""
        unknown = [device_id for device_id in ids if device_id not in self.pool.devices]
        if unknown:
            raise _invalid(f"{self.pool.resource_name} has no device {', '.join(unknown)}")
        reasons = [self.pool.devices[device_id].reason for device_id in ids]
        if any(reasons):
            # Without repetitions, in the order of the devices.
            sentence = "; ".join(dict.fromkeys(filter(None, reasons)))
            raise _Refusal(grpc.StatusCode.FAILED_PRECONDITION, sentence)

    def _log_refusal(self, call: str, refusal: _Refusal) -> None:
        emit(
            log, Event.ALLOCATION_REFUSED, "%s refused: %s", call, refusal,
            resource=self.pool.resource_name,
        )  # fmt: skip


def _device_list(devices: Iterable[Device]) -> api.ListAndWatchResponse:
    return api.ListAndWatchResponse(
        devices=[
            api.Device(
                ID=device.id,
                health="Healthy" if device.healthy else "Unhealthy",
                # For the kubelet, a device without a node may be on any node.
                topology=None
                if device.node is None
                else api.TopologyInfo(nodes=[api.NUMANode(ID=device.node)]),
            )
            for device in devices
        ]
    )


def _check_once(ids: Sequence[str]) -> None:
    twice = [device_id for device_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise _invalid(f"device {', '.join(twice)} is requested twice")


def _invalid(sentence: str) -> _Refusal:
    return _Refusal(grpc.StatusCode.INVALID_ARGUMENT, sentence)
