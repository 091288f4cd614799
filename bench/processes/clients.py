"""Clients of the device plugin: threads that call it at the same time, each with its connection.

They share one interpreter, so with many of them a time includes waiting for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Literal

import grpc

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc

Method = Literal["GetPreferredAllocation", "Allocate"]
METHODS: tuple[Method, ...] = ("GetPreferredAllocation", "Allocate")
SIZE = 4  # devices that a container requests

_OPTIONS = (
    ("grpc.default_authority", "localhost"),
    ("grpc.use_local_subchannel_pool", 1),  # otherwise all channels share a connection
)
_CONNECT_SECONDS = 20.0


@dataclass(frozen=True)
class Calls:
    """The time of each call of all clients, and of all together, in seconds."""

    times: Sequence[float]
    whole: float

    @property
    def rate(self) -> float:
        """Calls per second of all clients together."""
        return len(self.times) / self.whole


def call(endpoint: Path, method: Method, ids: Sequence[str], clients: int, number: int) -> Calls:
    """Each client calls this number of times, with these ids of devices available.

    Blocks; to be run in a thread. Raises grpc.RpcError if a call fails.
    """
    begun: list[float] = []
    begin = Barrier(clients, lambda: begun.append(time.perf_counter()))

    def client() -> list[float]:
        with grpc.insecure_channel(f"unix:{endpoint}", options=_OPTIONS) as channel:
            grpc.channel_ready_future(channel).result(_CONNECT_SECONDS)
            once = _call_of(rpc.DevicePluginStub(channel), method, ids)
            begin.wait(_CONNECT_SECONDS)
            return [_seconds(once) for _ in range(number)]

    with ThreadPoolExecutor(clients) as threads:
        running = [threads.submit(client) for _ in range(clients)]
        times = [seconds for one in running for seconds in one.result()]
        return Calls(times, time.perf_counter() - begun[0])


def _call_of(
    stub: rpc.DevicePluginStub, method: Method, ids: Sequence[str]
) -> Callable[[], object]:
    if method == "Allocate":
        container = api.ContainerAllocateRequest(devices_ids=ids[:SIZE])
        allocate = api.AllocateRequest(container_requests=[container])
        return lambda: stub.Allocate(allocate)
    wish = api.ContainerPreferredAllocationRequest(available_deviceIDs=ids, allocation_size=SIZE)
    prefer = api.PreferredAllocationRequest(container_requests=[wish])
    return lambda: stub.GetPreferredAllocation(prefer)


def _seconds(once: Callable[[], object]) -> float:
    start = time.perf_counter()
    once()
    return time.perf_counter() - start
