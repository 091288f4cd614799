"""The HTTP server of the metrics, on a TCP address or a unix socket.

prometheus-client makes the answers, see `metrics`. Its own server is not used: its threads wake up
twice a second, and it waits for a silent client forever. The plugin is more important than its
metrics: no failure here stops the daemon, and the number of connections is limited.

The life of a connection: accepted; its request must arrive within seconds; it is answered; the
answer must be read within seconds; closed. When all places are taken, a new client gets that of the
client that has been waited for the longest. If none is waited for, because all are being answered,
the new client waits until one is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from isolcpus_dp.host import sockets
from isolcpus_dp.kubelet import scrape
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.config import Listen

log = logging.getLogger(__name__)

# How long a client may take to send its request, and to read its answer.
_CLIENT_SECONDS = 2.0
# The plugin may need their descriptors.
_MOST_CONNECTIONS = 16
# Connections that wait to be accepted.
_BACKLOG = 128
# Delay after a connection could not be accepted, because no descriptor is left.
_ACCEPT_SECONDS = 1.0


class Metrics(Protocol):
    """Answers a scrape."""

    async def answer(self, query: scrape.Query) -> scrape.Answer: ...

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def serving(metrics: Metrics, listen: Listen) -> AsyncIterator[None]:
    """Serves the metrics within the block; if that is not possible, logs the reason."""
    try:
        listening = _bind(listen)
    except OSError as error:
        emit(
            log, Event.DEGRADED,
            "[Metrics] Listen=: cannot listen on it: %s; the plugin runs without metrics",
            _reason(error, listen),
        )  # fmt: skip
        yield
        return
    exporter = _Exporter(metrics, listening)
    try:
        yield
    finally:
        await exporter.close()
        await metrics.close()
        listening.close()
        if isinstance(listen, Path):
            listen.unlink(missing_ok=True)


class _Exporter:
    """Answers the clients of a listening socket, one request per connection."""

    def __init__(self, metrics: Metrics, listening: socket.socket) -> None:
        """To be called in the event loop."""
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._connections = set[asyncio.Task[None]]()
        # Those of them that wait for their client, the longest wait first.
        self._waiting = dict[asyncio.Task[None], None]()
        # Set when one of them is done or begins to wait.
        self._changed = asyncio.Event()
        # Only one answer is made in each iteration of the loop: between two, the kubelet is served.
        self._turn = asyncio.Lock()
        self._acceptor = asyncio.create_task(self._accept(listening))

    async def close(self) -> None:
        """Closes all connections."""
        tasks = [self._acceptor, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(listening)
            except ConnectionError:  # the client has gone
                continue
            except OSError as error:
                log.debug("cannot accept a connection to the metrics: %s", error.strerror)
                await asyncio.sleep(_ACCEPT_SECONDS)
                continue
            await self._make_room()
            task = asyncio.create_task(self._serve(connection))
            self._connections.add(task)
            task.add_done_callback(self._done)
            # A request that is already there is read before further clients can take its place.
            await asyncio.sleep(0)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._changed.set()

    async def _make_room(self) -> None:
        """Waits for a free place; drops the client with the longest wait if there is none."""
        while len(self._connections) >= _MOST_CONNECTIONS:
            if self._waiting:
                longest = next(iter(self._waiting))
                longest.cancel()
                del self._waiting[longest]
                self._connections.discard(longest)
            else:
                self._changed.clear()
                await self._changed.wait()

    async def _serve(self, connection: socket.socket) -> None:
        """Answers one request, and closes the connection."""
        with connection, contextlib.suppress(OSError, asyncio.CancelledError):
            with self._waits_for_client():
                request = await self._receive(connection)
            if request:
                answer = await self._answer(request)
                with self._waits_for_client():
                    await self._loop.sock_sendall(connection, answer)

    @contextlib.contextmanager
    def _waits_for_client(self) -> Iterator[None]:
        """In the block, this task waits for its client, and is cancelled if that takes too long."""
        task = asyncio.current_task()
        assert task
        timer = self._loop.call_later(_CLIENT_SECONDS, task.cancel)
        self._waiting[task] = None
        self._changed.set()
        try:
            yield
        finally:
            timer.cancel()
            self._waiting.pop(task, None)

    async def _receive(self, connection: socket.socket) -> bytes:
        """The request line and the headers; as far as they were sent if they are too long.

        b"" if the client closes the connection before.
        """
        received = b""
        while scrape.END not in received and len(received) <= scrape.MOST_BYTES:
            more = await self._loop.sock_recv(connection, scrape.MOST_BYTES)
            if not more:
                return b""
            received += more
        return received

    async def _answer(self, request: bytes) -> bytes:
        try:
            query = scrape.parse(request)
            async with self._turn:
                answer = await self._metrics.answer(query)
                await asyncio.sleep(0)
        except scrape.Refused as refused:
            return refused.message
        return answer.message(query)


def _bind(listen: Listen) -> socket.socket:
    """A socket that listens on the address or path. Raises OSError."""
    if not isinstance(listen, Path):
        [(family, *_, address)] = socket.getaddrinfo(
            *listen, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
    else:
        # Another process's socket must not be removed; that of an earlier worker must.
        if sockets.peer(listen):
            raise OSError(errno.EADDRINUSE, "the socket is already in use")
        if listen.is_socket():
            listen.unlink()
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(str(listen))
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
    listening.settimeout(0)
    return listening


def _reason(error: OSError, listen: Listen) -> str:
    """The reason of the error, and what to do."""
    # Not every OSError has a strerror.
    reason = error.strerror or str(error)
    if isinstance(listen, Path):
        if listen.is_dir():
            return sockets.obstacle(listen)
        return f"{reason}: the unit's sandbox allows a socket in /run/isolcpus-dp"
    if error.errno == errno.EAFNOSUPPORT:
        return (
            f"{reason}: the unit's sandbox has no network unless a drop-in (systemctl edit"
            " isolcpus-dp) sets, in [Service], PrivateNetwork=no and"
            " RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 and"
            " IPAddressAllow=localhost; see isolcpus-dp.conf(5)"
        )
    return f"{reason}: use a free address of this host"
