"""Asks the kubelet which container holds which devices, on its pod resources socket.

For the reports and the metrics; the device plugin itself does not need it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from isolcpus_dp.api import podresources_pb2 as api
from isolcpus_dp.api import podresources_pb2_grpc as rpc
from isolcpus_dp.host import sockets
from isolcpus_dp.kubelet import paths

if TYPE_CHECKING:
    from isolcpus_dp.host.sockets import Identity
    from isolcpus_dp.pool import Pool

log = logging.getLogger(__name__)

# gRPC would otherwise reuse a connection to an earlier kubelet at this path.
_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
# How long the kubelet may take to answer a command.
_LIST_SECONDS = 5.0
# The same for a Lister: less than the 10 s that Prometheus waits for an answer.
_LISTER_SECONDS = 2.0
# How long a Lister keeps an answer.
_KEPT_SECONDS = 1.0
# How long it keeps an unused connection: gRPC wakes up about once a second for an open one.
_IDLE_SECONDS = 10.0


class Unseen(Exception):
    """The kubelet cannot be asked; the message is one sentence with the reason."""


@dataclass(frozen=True)
class Allocation:
    """The devices of one resource that a container holds."""

    namespace: str
    pod: str
    container: str
    resource: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}/{self.container}"


@dataclass(frozen=True)
class Listing:
    """The containers of the kubelet's pods, and the devices of all resources that they hold."""

    # namespace/pod/container, also of those that hold no devices. Init containers are only listed
    # if they run beside the others (kubelet: pkg/kubelet/apis/podresources/server_v1.go).
    containers: frozenset[str]
    allocations: tuple[Allocation, ...]


def look(kubelet_dir: Path) -> Listing:
    """What the kubelet lists. Blocks for at most 5 s. Raises Unseen."""
    path = _pod_resources(kubelet_dir)
    with grpc.insecure_channel(f"unix:{path}", _OPTIONS) as channel, _answering(path):
        listed = rpc.PodResourcesListerStub(channel).List(
            api.ListPodResourcesRequest(), timeout=_LIST_SECONDS
        )
    return Listing(
        containers=frozenset(
            f"{pod.namespace}/{pod.name}/{container.name}"
            for pod in listed.pod_resources
            for container in pod.containers
        ),
        allocations=tuple(_held(listed)),
    )


class Lister:
    """Asks the kubelet again and again, at most once a second. For the metrics.

    The kubelet limits the calls of all its clients together, to 100 a second (kubelet:
    pkg/kubelet/apis/podresources/constants.go). All callers within a second get the same answer,
    also if it is that the kubelet does not answer. The calls use one connection, which is closed
    after a failure, if the socket is recreated, and when it has not been used for a while.
    """

    def __init__(
        self,
        kubelet_root: Callable[[], Path],
        clock: Callable[[], float] = time.monotonic,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        """`kubelet_root` returns the kubelet's root directory; it is called for each call."""
        self._kubelet_root = kubelet_root
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._call: asyncio.Task[Sequence[Allocation] | None] | None = None  # the last one
        self._answered = 0.0  # when it was answered
        self._channel: grpc.aio.Channel | None = None
        self._socket: Identity | None = None  # to which the channel connects
        self._idle: asyncio.TimerHandle | None = None

    async def allocations(self) -> Sequence[Allocation] | None:
        """The allocations of all resources; None if the kubelet does not answer within 2 s."""
        if self._call is None or (self._call.done() and self._is_old()):
            self._call = asyncio.create_task(self._ask())
        # If one caller is cancelled, the others still wait for the answer.
        return await asyncio.shield(self._call)

    async def close(self) -> None:
        """Ends a call, and closes the connection."""
        if self._call:
            self._call.cancel()
            await asyncio.wait([self._call])
        await self._disconnect()

    def _is_old(self) -> bool:
        return self._clock() - self._answered >= _KEPT_SECONDS

    async def _ask(self) -> Sequence[Allocation] | None:
        try:
            return _held(await self._list())
        except Unseen as unseen:
            log.debug("no allocations in the metrics: %s", unseen)
            # gRPC would delay its next attempt to connect.
            await self._disconnect()
            return None
        finally:
            self._answered = self._clock()

    async def _list(self) -> api.ListPodResourcesResponse:
        path = _pod_resources(self._kubelet_root())
        channel = await self._connected(path)
        with _answering(path):
            stub = rpc.PodResourcesListerStub(channel)
            listed = await stub.List(api.ListPodResourcesRequest(), timeout=_LISTER_SECONDS)
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(
            self._idle_seconds, lambda: loop.create_task(self._disconnect())
        )
        return listed

    async def _connected(self, path: Path) -> grpc.aio.Channel:
        """The open channel, or a new one if there is none or the socket is another one."""
        socket = sockets.identify(path)
        if self._channel is None or socket != self._socket:
            await self._disconnect()
            self._channel = grpc.aio.insecure_channel(f"unix:{path}", options=_OPTIONS)
            self._socket = socket
        if self._idle:
            self._idle.cancel()
        return self._channel

    async def _disconnect(self) -> None:
        channel, self._channel = self._channel, None
        if self._idle:
            self._idle.cancel()
        if channel:
            await channel.close()


def _pod_resources(kubelet_dir: Path) -> Path:
    """The kubelet's pod resources socket. Raises Unseen if it is missing or not readable."""
    path = paths.pod_resources_socket(kubelet_dir)
    # For a missing socket gRPC would only report, after a while, that it could not connect.
    try:
        path.stat()
    except PermissionError:
        raise Unseen(f"{path} is readable by root only: run this as root") from None
    except OSError:
        raise Unseen(paths.missing(path)) from None
    return path


@contextlib.contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Turns a gRPC error in the block into Unseen."""
    try:
        yield
    except grpc.RpcError as error:
        details = getattr(error, "details", str)
        raise Unseen(f"{path} does not answer: {details()}") from error


def _held(listed: api.ListPodResourcesResponse) -> list[Allocation]:
    return [
        Allocation(pod.namespace, pod.name, container.name, held.resource_name, (*held.device_ids,))
        for pod in listed.pod_resources
        for container in pod.containers
        for held in container.devices
    ]


def owned(pool: Pool, allocation: Allocation) -> frozenset[int]:
    """The CPUs of an allocation's devices; for a device no longer offered, its lowest CPU."""
    known = pool.cpus_of(device_id for device_id in allocation.ids if device_id in pool.devices)
    return known | {
        int(device_id)
        for device_id in allocation.ids
        if device_id not in pool.devices and device_id.isdecimal()
    }
