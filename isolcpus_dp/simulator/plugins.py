"""The device plugins that are registered with the simulated kubelet: connections and calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from isolcpus_dp import config
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc

_DIAL_SECONDS = 10.0


@dataclass(frozen=True)
class Registration:
    """The steps of a registration, in this order; times are time.monotonic()."""

    bound: float  # the kubelet bound its socket
    called: float  # Register arrived
    connected: float  # the plugin accepted the kubelet's connection
    answered: float  # the plugin answered GetDevicePluginOptions
    reported: float  # the plugin's first device list arrived

    @property
    def seconds(self) -> float:
        """From the socket to the devices."""
        return self.reported - self.bound

    @property
    def parts(self) -> dict[str, float]:
        """By step: the seconds from the step before it."""
        return {
            "Register arrived": self.called - self.bound,
            "dial-back accepted": self.connected - self.called,
            "options answered": self.answered - self.connected,
            "devices arrived": self.reported - self.answered,
        }


@dataclass
class Plugin:
    """A registered resource: the connection to its plugin, and the last reported devices.

    The times are those of `Registration`.
    """

    resource: str
    channel: grpc.aio.Channel
    stub: rpc.DevicePluginAsyncStub
    gives_preferences: bool
    called: float
    connected: float
    answered: float
    reported: float | None = None  # None: not yet
    devices: dict[str, api.Device] = field(default_factory=dict)
    stream: Any = None  # the call of ListAndWatch
    is_closed: bool = False

    async def close(self) -> None:
        """Closes the connection, which ends the stream."""
        self.is_closed = True
        if self.stream:
            # Some versions of grpcio do not end a call when its channel is closed.
            self.stream.cancel()
        await self.channel.close()

    @property
    def healthy(self) -> frozenset[str]:
        return frozenset(
            device_id for device_id, device in self.devices.items() if device.health == "Healthy"
        )

    def nodes(self, ids: Iterable[str]) -> dict[str, int | None]:
        """By id: the NUMA node of the device; None if it has none."""
        return {
            device_id: next((n.ID for n in self.devices[device_id].topology.nodes), None)
            for device_id in ids
        }

    async def prefer(
        self, available: frozenset[str], must_include: frozenset[str], size: int
    ) -> Iterable[str]:
        """The ids that the plugin prefers. Raises AioRpcError."""
        request = api.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
        )
        answer = await self.stub.GetPreferredAllocation(
            api.PreferredAllocationRequest(container_requests=[request])
        )
        return answer.container_responses[0].deviceIDs

    async def allocate(self, ids: Iterable[str]) -> bytes:
        """The plugin's ContainerAllocateResponse for these devices. Raises AioRpcError."""
        request = api.ContainerAllocateRequest(devices_ids=sorted(ids))
        answer = await self.stub.Allocate(api.AllocateRequest(container_requests=[request]))
        return answer.container_responses[0].SerializeToString()


async def dial(request: api.RegisterRequest, directory: Path) -> Plugin:
    """Checks a registration as the kubelet does, and connects to the plugin's socket.

    Raises ValueError with the kubelet's text.
    """
    called = time.monotonic()
    if request.version != "v1beta1":
        raise ValueError(f"requested API version {request.version!r} is not supported")
    try:
        config.check_resource_name(request.resource_name)
    except ValueError:
        raise ValueError(f"the ResourceName {request.resource_name!r} is invalid") from None
    # Without the pool of this process: it delays the connection to a socket that was dead before.
    # The kubelet's connections share nothing.
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.aio.insecure_channel(f"unix:{directory / request.endpoint}", options=options)
    # Like the kubelet, which dials with grpc.WithBlock(), it calls only when it is connected.
    try:
        await asyncio.wait_for(channel.channel_ready(), _DIAL_SECONDS)
    except asyncio.TimeoutError:
        await channel.close()
        raise ValueError("failed to dial device plugin: context deadline exceeded") from None
    connected = time.monotonic()
    stub = rpc.DevicePluginStub(channel)
    answer = await stub.GetDevicePluginOptions(api.Empty())
    return Plugin(
        request.resource_name,
        channel,
        stub,
        answer.get_preferred_allocation_available,
        called,
        connected,
        answered=time.monotonic(),
    )
