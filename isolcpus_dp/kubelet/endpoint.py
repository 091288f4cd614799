"""The plugin's socket in the kubelet's directory, and the gRPC server behind it.

If two daemons start at once, one of them binds it. After the kubelet has removed it, it is bound
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.host import sockets

if TYPE_CHECKING:
    from isolcpus_dp.host.sockets import Identity

log = logging.getLogger(__name__)

# grpc loads a module only when the first service is defined. A worker must not have to load it.
grpc.unary_unary_rpc_method_handler(lambda request, context: None)

# Another starting daemon holds the directory's lock for milliseconds.
_LOCK_SECONDS = 10.0
_LOCK_INTERVAL = 0.005


class EndpointError(Exception):
    """The plugin's socket cannot be bound; one sentence says why and what to do."""


class Endpoint:
    """The plugin's socket in the kubelet's directory, and the gRPC servers behind it.

    The kubelet removes every socket there when it starts; `publish` binds a new one.
    """

    def __init__(
        self, path: Path, plugin: rpc.DevicePluginServicer, lock_seconds: float = _LOCK_SECONDS
    ) -> None:
        self.name = path.name
        self._path = path
        self._plugin = plugin
        self._lock_seconds = lock_seconds
        self._identity: Identity | None = None
        self._servers: list[grpc.aio.Server] = []

    async def publish(self) -> None:
        """Binds the path, unless it is still bound. Raises EndpointError."""
        if self._is_bound():
            return
        async with _locked(self._path.parent, self._lock_seconds):
            self._check_free()
            # Servers whose path was removed have no caller left. They are stopped here, where the
            # path is free: a gRPC server that stops removes the file at its path. One is kept, so
            # that the first removal, which every kubelet does when it starts, costs no time.
            while len(self._servers) > 1:
                await self._servers.pop(0).stop(grace=None)
            server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            rpc.add_DevicePluginServicer_to_server(self._plugin, server)
            self._bind(server)
            self._identity = sockets.identify(self._path)
        await server.start()
        self._servers.append(server)

    async def prove(self) -> None:
        """Calls the plugin as the kubelet will, so that everything an answer needs is loaded."""
        async with grpc.aio.insecure_channel(f"unix:{self._path}") as channel:
            try:
                await rpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty())
            except grpc.aio.AioRpcError as error:
                # A kubelet that has just started has removed the socket: publish() binds it again.
                log.debug("%s does not answer: %s", self._path, error.details())

    async def close(self) -> None:
        """Closes all connections and removes the socket, in a process that goes on, such as a test.

        If another process has bound the path since, it is left alone, and the connections close
        when this process ends: a gRPC server that stops removes the file, whoever has bound it.
        """
        if self._is_bound():
            for server in self._servers:
                await server.stop(grace=None)

    def remove(self) -> None:
        """Removes the socket, unless another process has bound the path since.

        To be called when the process ends at once, which closes the connections.
        """
        if self._is_bound():
            # A kubelet that starts may be removing it, too.
            self._path.unlink(missing_ok=True)

    def _is_bound(self) -> bool:
        return self._identity is not None and self._identity == sockets.identify(self._path)

    def _check_free(self) -> None:
        holder = sockets.peer(self._path)
        if holder:
            raise EndpointError(
                f"{self._path} is held by {holder}, which serves"
                " it already: stop that process first"
            )

    def _bind(self, server: grpc.aio.Server) -> None:
        try:
            bound = server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError:  # newer grpcio raises where older ones return 0
            bound = 0
        if not bound:
            raise EndpointError(
                f"cannot bind {self._path}: its directory must be writable,"
                " and the path must be free or a socket"
            )


@contextlib.asynccontextmanager
async def _locked(directory: Path, lock_seconds: float) -> AsyncIterator[None]:
    """Holds an advisory lock on a directory: if two daemons start at once, one binds first.

    The same holds for two endpoints of this daemon. Waits without blocking the event loop, which
    feeds the watchdog. Raises EndpointError.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise EndpointError(
            f"{directory} cannot be opened: {error.strerror}: it is the kubelet's directory for"
            " device plugins; see --kubelet-dir"
        ) from error
    try:
        for _ in range(round(lock_seconds / _LOCK_INTERVAL)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_INTERVAL)
        else:
            raise EndpointError(
                f"{directory} has been locked for {lock_seconds:.0f} s by another process"
                " (flock(2)): run lslocks to find it"
            )
        yield
    finally:
        os.close(descriptor)
