"""The HTTP server of the metrics, on a TCP address or a unix socket.

prometheus-client's own server needs threads that wake up, so the few lines of HTTP are here. The
plugin is more important than its metrics: no failure here stops the daemon.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from isolcpus_dp.host import sockets
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.config import Listen
    from isolcpus_dp.kubelet.metrics import Metrics

log = logging.getLogger(__name__)

# The request of a scraper is a line and a few headers.
_MOST_REQUEST = 8192  # bytes
_REQUEST_SECONDS = 5.0
# Further connections are closed at once: the plugin may need their descriptors.
_MOST_CONNECTIONS = 16


@contextlib.asynccontextmanager
async def serving(metrics: Metrics, listen: Listen) -> AsyncIterator[None]:
    """Serves the metrics within the block; if that is not possible, logs the reason."""
    exporter, server = _Exporter(metrics), None
    try:
        server = await exporter.listen(listen)
    except OSError as error:
        emit(
            log, Event.DEGRADED,
            "[Metrics] Listen=: cannot listen on it: %s; the plugin runs without metrics",
            _reason(error, listen),
        )  # fmt: skip
    try:
        yield
    finally:
        if server:
            server.close()
            if isinstance(listen, Path):
                listen.unlink(missing_ok=True)


class _Exporter:
    """Answers GET /metrics, one request per connection."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._connections = 0

    async def listen(self, listen: Listen) -> asyncio.AbstractServer:
        """Binds the address or path and serves on it. Raises OSError."""
        if isinstance(listen, Path):
            # asyncio would remove another process's socket.
            if sockets.peer(listen):
                raise OSError(errno.EADDRINUSE, "the socket is already in use")
            return await asyncio.start_unix_server(self._serve, str(listen), limit=_MOST_REQUEST)
        # Bound here: asyncio skips an address for which it gets no socket, and may have none
        # left.
        [(family, *_, address)] = socket.getaddrinfo(
            *listen, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        bound = socket.create_server(address, family=family)
        return await asyncio.start_server(self._serve, sock=bound, limit=_MOST_REQUEST)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, and closes the connection."""
        self._connections += 1
        try:
            if self._connections <= _MOST_CONNECTIONS:
                # Also a client that does not read its answer is dropped.
                await asyncio.wait_for(self._answer(reader, writer), _REQUEST_SECONDS)
        except (
            OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError,
            asyncio.CancelledError,  # the daemon ends
        ):  # fmt: skip
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, *_ = [*request.split(b"\r\n", 1)[0].split(), b"", b""]
        if method not in (b"GET", b"HEAD") or target.split(b"?")[0] not in (b"/metrics", b"/"):
            writer.write(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            body = await self._metrics.render()
            head = f"HTTP/1.0 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + (body if method == b"GET" else b""))
        await writer.drain()


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
