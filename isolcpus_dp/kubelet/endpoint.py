"""The plugin's socket in the kubelet's directory, and the gRPC server behind it.

If two daemons start at once, one of them gets the path. After the kubelet has removed the socket,
it is put there again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.host import sockets
from isolcpus_dp.kubelet import paths

if TYPE_CHECKING:
    from isolcpus_dp.host.sockets import Identity

log = logging.getLogger(__name__)

# grpc loads a module only when the first service is defined. A worker must not have to load it.
grpc.unary_unary_rpc_method_handler(lambda request, context: None)


def _in_one_line(record: logging.LogRecord) -> bool:
    """Shortens what gRPC logs about a message that it cannot parse: the sender is at fault."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, (DecodeError, UnicodeDecodeError)):
        record.msg, record.args = "could not parse a message of the kubelet: %s", (error,)
        record.exc_info = record.exc_text = None
    return True


for _name in ("grpc._common", "grpc._cython.cygrpc"):
    logging.getLogger(_name).addFilter(_in_one_line)

# Another starting daemon holds the directory's lock for milliseconds.
_LOCK_SECONDS = 10.0
_LOCK_INTERVAL = 0.005


class EndpointError(Exception):
    """The plugin's socket cannot be bound; one sentence says why and what to do."""


@dataclass(frozen=True)
class _Own:
    """The server's own socket."""

    path: Path
    identity: Identity
    server: grpc.aio.Server

    def is_at(self, path: Path) -> bool:
        """Whether the socket, or a link to it, is at the path."""
        return self.identity == sockets.identify(path)


class Endpoint:
    """The plugin's socket in the kubelet's directory, and the gRPC server behind it.

    The kubelet removes every socket there when it starts, but no directory. The server's own socket
    is therefore in a subdirectory, and the one that the kubelet connects to is a hard link to it.
    To make the link again takes less than a tenth of the time of a new server, in which the kubelet
    may begin to admit pods.

    Where this is not possible, the server binds the path itself, each time: on a file system
    without hard links, or if the subdirectory cannot be used or its paths are too long.
    """

    def __init__(
        self, path: Path, plugin: rpc.DevicePluginServicer, lock_seconds: float = _LOCK_SECONDS
    ) -> None:
        self.name = path.name
        self._path = path
        self._plugin = plugin
        self._lock_seconds = lock_seconds
        self._own: _Own | None = None

    async def publish(self) -> None:
        """Puts the socket at its path, unless it is there. Raises EndpointError."""
        if self._is_published() or self._link():
            return
        async with _locked(self._path.parent, self._lock_seconds):
            self._check_free()
            if not self._link():
                await self._bind()

    async def prove(self) -> None:
        """Calls the plugin as the kubelet will, so that everything an answer needs is loaded."""
        async with grpc.aio.insecure_channel(f"unix:{self._path}") as channel:
            try:
                await rpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty())
            except grpc.aio.AioRpcError as error:
                # A kubelet that has just started has removed the socket: publish() links it again.
                log.debug("%s does not answer: %s", self._path, error.details())

    async def close(self) -> None:
        """Removes the socket and closes all connections, in a process that goes on."""
        self.remove()
        if self._own:
            await self._own.server.stop(grace=None)

    def remove(self) -> None:
        """Removes the socket, unless another process has bound the path since.

        If the process ends at once, that closes the connections.
        """
        if not self._own:
            return
        for path in (self._path, self._own.path):
            if self._own.is_at(path):
                path.unlink(missing_ok=True)  # a kubelet that starts may be removing it, too
        with contextlib.suppress(OSError):  # another daemon has its sockets there
            paths.own_sockets(self._path.parent).rmdir()

    def _is_published(self) -> bool:
        return self._own is not None and self._own.is_at(self._path)

    def _link(self) -> bool:
        """Links the path to the server's socket; returns whether that was possible."""
        own = self._own
        if own is None or not own.is_at(own.path):
            return False
        try:
            os.link(own.path, self._path)
        except OSError as error:
            log.debug("cannot link %s to %s: %s", self._path, own.path, error.strerror)
            return False
        return True

    async def _bind(self) -> None:
        """Starts a new server, with its socket at the path. Raises EndpointError."""
        await self._drop()  # the socket of an earlier server was removed
        with contextlib.suppress(OSError):
            self._own = await self._serve(_free_name(paths.own_sockets(self._path.parent)))
        if self._link():
            return
        if self._path.is_socket():
            raise EndpointError(f"another process has just bound {self._path}")
        await self._drop()
        self._own = await self._serve(self._path)
        if not self._own:
            raise EndpointError(
                f"cannot bind a socket in {self._path.parent}: it must be writable, and its file"
                " system must not be full"
            )

    async def _drop(self) -> None:
        await self.close()
        self._own = None

    async def _serve(self, path: Path) -> _Own | None:
        """Starts a server on the path; None if it cannot be bound."""
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        rpc.add_DevicePluginServicer_to_server(self._plugin, server)
        try:
            bound = server.add_insecure_port(f"unix:{path}")
        except RuntimeError:  # newer grpcio raises where older ones return 0
            bound = 0
        identity = sockets.identify(path)
        if not bound or identity is None:
            return None
        await server.start()
        return _Own(path, identity, server)

    def _check_free(self) -> None:
        """Removes a socket on which no process listens. Raises EndpointError."""
        holder = sockets.peer(self._path)
        if holder:
            raise EndpointError(
                f"{self._path} is held by {holder}, which serves"
                " it already: stop that process first"
            )
        try:
            if self._path.is_socket():
                self._path.unlink()
        except OSError as error:
            raise EndpointError(f"cannot remove {self._path}: {error.strerror}") from error
        if obstacle := sockets.obstacle(self._path):
            raise EndpointError(obstacle)


def _free_name(directory: Path) -> Path:
    """A free path for a socket of this process; removes those of processes that were killed.

    To be called while the kubelet's directory is locked. Raises OSError.
    """
    directory.mkdir(exist_ok=True)
    directory.chmod(0o700)  # whatever the umask
    for number in itertools.count():
        path = directory / str(number)
        if not sockets.peer(path):
            path.unlink(missing_ok=True)
            return path
    raise AssertionError("count() does not end")


@contextlib.asynccontextmanager
async def _locked(directory: Path, lock_seconds: float) -> AsyncIterator[None]:
    """Holds an advisory lock on a directory: if two daemons start at once, one binds first.

    The same holds for two endpoints of this daemon. Waits without blocking the event loop, which
    feeds the watchdog. Raises EndpointError, or OSError if descriptors are used up.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in sockets.USED_UP:
            raise
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
