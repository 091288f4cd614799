"""The DevicePlugin gRPC service over a pool, and the socket it is served on.

Knows what to answer; when to register and when to leave is for `service`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from isolcpus_dp import placement
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.config import ConfigError
from isolcpus_dp.host import cpulist, sockets
from isolcpus_dp.host.machine import Machine, cpuid_device_node
from isolcpus_dp.pool import Device, Pool
from isolcpus_dp.service.events import Event, fields

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger(__name__)

# Told of each answer to Allocate: resource, ok or refused, and the seconds it took.
OnAllocate = Callable[[str, str, float], None]

OPTIONS = api.DevicePluginOptions(get_preferred_allocation_available=True)

# sun_path of unix(7), less its final zero byte.
_LONGEST_SOCKET_PATH = 107

# Another daemon that starts holds the folder's lock for milliseconds.
_LOCK_SECONDS = 10.0
_LOCK_INTERVAL = 0.005


class EndpointError(Exception):
    """The plugin's socket cannot be had; one sentence says why and what to do."""


class _Refusal(Exception):
    """A call that cannot be answered: gRPC status and a sentence that names the culprit."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Stream:
    """The life of the kubelet's ListAndWatch stream: it opens once and ends once."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()


class DevicePlugin(rpc.DevicePluginServicer):
    """Answers the kubelet from a machine and its pool.

    `device_nodes` says which of the cpuid device nodes of some CPUs exist on the host.
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

    def publish(self, machine: Machine, pool: Pool) -> None:
        """Answers from these from now on; open streams send a message if the devices differ."""
        self.machine, self.pool = machine, pool
        self._changed.set()
        self._changed = asyncio.Event()

    def expect_kubelet(self) -> Stream:
        """The next ListAndWatch stream to open is the kubelet's: it dials back when we register."""
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
        stream.opened.set()
        sent = None
        try:
            while True:
                changed = self._changed
                if self.pool.devices != sent:
                    sent = self.pool.devices
                    yield _device_list(sent.values())
                await changed.wait()
        finally:
            stream.ended.set()

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
            asked = [list(one.devices_ids) for one in request.container_requests]
            _check_once([id for ids in asked for id in ids])
            granted = [self._allocatable(ids) for ids in asked]
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
        available, must = list(request.available_deviceIDs), list(request.must_include_deviceIDs)
        for ids in (available, must):
            _check_once(ids)
            self._devices(ids)
        if not set(must) <= set(available):
            stray = ", ".join(id for id in must if id not in available)
            raise _invalid(f"device {stray} must be included but is not available")
        size = request.allocation_size
        if not max(1, len(must)) <= size <= len(available):
            raise _invalid(
                f"{size} devices asked for, of {len(available)} available"
                f" with {len(must)} that must be included"
            )
        # A core that is handed out as one device is placed as if its lowest thread were all of it.
        machine = self.machine
        if self.pool.config.granularity == "core":
            machine = machine.with_lone_threads(map(int, available))
        cpus = placement.choose(
            machine,
            frozenset(map(int, available)),
            frozenset(map(int, must)),
            size,
            self.pool.config.placement,
        )
        return api.ContainerPreferredAllocationResponse(deviceIDs=map(str, sorted(cpus)))

    def _allocatable(self, ids: Sequence[str]) -> frozenset[int]:
        """The CPUs of the devices, if a container may have them now."""
        if not ids:
            raise _invalid("a container asks for no device at all")
        devices = self._devices(ids)
        unhealthy = [device.id for device in devices if not device.healthy]
        if unhealthy:
            raise _Refusal(grpc.StatusCode.FAILED_PRECONDITION, self._why_unhealthy(unhealthy))
        return self.pool.of(ids)

    def _grant(self, cpus: frozenset[int]) -> api.ContainerAllocateResponse:
        """What the container that owns these CPUs gets from the kubelet."""
        text = cpulist.render(cpus)
        resource = self.pool.resource_name
        log.info(
            "allocated CPU %s of %s", text, resource,
            extra=fields(Event.ALLOCATED, resource=resource, cpus=cpus),
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

    def _devices(self, ids: Sequence[str]) -> list[Device]:
        unknown = [id for id in ids if id not in self.pool.devices]
        if unknown:
            raise _invalid(f"{self.pool.resource_name} has no device {', '.join(unknown)}")
        return [self.pool.devices[id] for id in ids]

    def _why_unhealthy(self, ids: Sequence[str]) -> str:
        offline = self.pool.of(ids) - self.machine.online
        if offline:
            return f"CPU {cpulist.render(offline)} is offline"
        return f"device {', '.join(ids)} may lack a thread, which is offline"

    def _log_refusal(self, call: str, refusal: _Refusal) -> None:
        log.warning(
            "%s refused: %s", call, refusal,
            extra=fields(Event.ALLOCATION_REFUSED, resource=self.pool.resource_name),
        )  # fmt: skip


class Endpoint:
    """The plugin's socket in the kubelet's folder, with the service behind it.

    The kubelet removes every socket there when it starts; `publish` puts a removed one back.
    """

    def __init__(self, path: Path, plugin: DevicePlugin) -> None:
        self.name = path.name
        self._path = path
        self._plugin = plugin
        self._inode: tuple[int, int] | None = None
        self._servers: list[grpc.aio.Server] = []

    async def publish(self) -> None:
        """Serves on the path, unless it still leads to us. Raises EndpointError and ConfigError."""
        if self._inode and self._inode == _inode(self._path):
            return
        if len(os.fsencode(self._path)) > _LONGEST_SOCKET_PATH:
            raise ConfigError(
                f"{self._path} is longer than the {_LONGEST_SOCKET_PATH} bytes that a socket's"
                " path may have: shorten ResourceName= or --kubelet-dir"
            )
        async with _locked(self._path.parent):
            self._check_free()
            # Those whose path was wiped have no caller left, but only now is nobody at the path: a
            # gRPC server that stops removes what is there. One may stay, so that the first wipe,
            # which every kubelet does when it starts, costs no time.
            while len(self._servers) > 1:
                await self._servers.pop(0).stop(grace=None)
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            rpc.add_DevicePluginServicer_to_server(self._plugin, server)
            self._bind(server)
            self._inode = _inode(self._path)
        await server.start()
        self._servers.append(server)

    async def prove(self) -> None:
        """Asks itself, as the kubelet will: who answers has loaded all that an answer takes."""
        async with grpc.aio.insecure_channel(f"unix:{self._path}") as channel:
            try:
                await rpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty())
            except grpc.aio.AioRpcError as error:
                # A kubelet that starts in this moment has wiped the socket: publish() mends it.
                log.debug("%s does not answer: %s", self._path, error.details())

    async def close(self) -> None:
        """Drops all connections and removes the socket."""
        for server in self._servers:
            await server.stop(grace=None)

    def _check_free(self) -> None:
        holder = sockets.peer(self._path)
        if holder:
            raise EndpointError(
                f"{self._path} is held by {holder}, which serves it already:"
                " stop that one first, or let it do the work"
            )

    def _bind(self, server: grpc.aio.Server) -> None:
        try:
            bound = server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError:  # newer grpcio raises where older ones return 0
            bound = 0
        if not bound:
            raise EndpointError(
                f"cannot bind {self._path}: its folder must be writable,"
                " and nothing but a socket may be in the way"
            )


@contextlib.asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    """Holds an advisory lock on a folder: of two daemons that start at once, one binds first.

    So does one of two endpoints of ours. Waited for without holding up the event loop, which has
    the watchdog to feed. Raises EndpointError.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EndpointError(
            f"{folder} cannot be opened: {error.strerror}: it is the kubelet's folder for device"
            " plugins; see --kubelet-dir"
        ) from error
    try:
        for _ in range(round(_LOCK_SECONDS / _LOCK_INTERVAL)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_INTERVAL)
        else:
            raise EndpointError(
                f"{folder} has been locked for {_LOCK_SECONDS:.0f} s by a process that does not let"
                " go of it (flock(2)): lslocks names it"
            )
        yield
    finally:
        os.close(descriptor)


def _inode(path: Path) -> tuple[int, int] | None:
    """What tells a file from the next one of its name: ext4 hands inode numbers out again."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_ctime_ns


def _device_list(devices: Iterable[Device]) -> api.ListAndWatchResponse:
    return api.ListAndWatchResponse(
        devices=[
            api.Device(
                ID=device.id,
                health="Healthy" if device.healthy else "Unhealthy",
                # A device without a node counts as being anywhere.
                topology=None
                if device.node is None
                else api.TopologyInfo(nodes=[api.NUMANode(ID=device.node)]),
            )
            for device in devices
        ]
    )


def _check_once(ids: Sequence[str]) -> None:
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise _invalid(f"device {', '.join(twice)} is asked for twice")


def _invalid(sentence: str) -> _Refusal:
    return _Refusal(grpc.StatusCode.INVALID_ARGUMENT, sentence)
