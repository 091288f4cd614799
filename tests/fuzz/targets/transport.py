"""The NRI transport: the first byte says whether a stream of bytes or a call to the plugin follows.

A connection answers, waits for more bytes, or is closed.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from isolcpus_dp.api import ttrpc_pb2
from isolcpus_dp.config import PinningConfig
from isolcpus_dp.host import inotify
from isolcpus_dp.nri import frames
from isolcpus_dp.nri.messages import Update
from isolcpus_dp.nri.pinning import Owned, Rules
from isolcpus_dp.nri.plugin import Plugin
from isolcpus_dp.nri.protocol import PLUGIN_SERVICE, TO_PLUGIN, TO_RUNTIME
from isolcpus_dp.nri.quota import Quotas
from isolcpus_dp.nri.requested import Requested
from isolcpus_dp.nri.sandbox import Sandboxes
from isolcpus_dp.nri.ttrpc import Code, Connection
from isolcpus_dp.nri.unconfirmed import Unconfirmed
from isolcpus_dp.nri.watches import Watches

_ALL = frozenset(range(8))
_ISOLATED = frozenset({2, 3, 6, 7})
_RULES = Rules(
    pools={"windriver.com/isolcpus": Owned(_ISOLATED, mixed=False)},
    isolated=_ISOLATED,
    housekeeping=_ALL - _ISOLATED,
    nameable=_ALL,
    online=_ALL,
    nodes={cpu: cpu // 4 for cpu in _ALL},
    pinning=PinningConfig(),
)
# By the first byte: the method that is called with the other bytes. Any other byte begins a stream.
CALLS = {
    b"C": "Configure",
    b"S": "Synchronize",
    b"c": "CreateContainer",
    b"u": "UpdateContainer",
    b"s": "StopContainer",
    b"e": "StateChange",
    b"D": "Shutdown",
    b"o": "Other",
}


class _Runtime:
    """The plugin's connection to the runtime; it drops the updates that the plugin requests."""

    rules = _RULES

    def __init__(self) -> None:
        # There is no cgroup, so that nothing is watched.
        cgroups, watches = Path("/nonexistent"), Watches(inotify.Watch())
        self.quotas = Quotas(cgroups, watches)
        self.sandboxes = Sandboxes(cgroups, lambda: _RULES, watches)
        self.unconfirmed = Unconfirmed()
        self.requested = Requested()

    def synchronizing(self) -> None:
        pass

    def synchronized(self, runtime: str) -> None:
        pass

    def update(self, update: Update) -> None:
        pass


class _Wire(asyncio.Transport):
    """A transport that keeps what is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True


def check(data: bytes) -> bool:
    """A stream is answered, waited for or refused; a call gets exactly one answer."""
    loop = asyncio.new_event_loop()
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return loop.run_until_complete(_check(data))
    finally:
        logging.disable(level)
        loop.close()


async def _check(data: bytes) -> bool:
    plugin = Plugin(_Runtime())
    connection, wire = Connection(TO_PLUGIN, TO_RUNTIME, plugin.answer), _Wire()
    connection.connection_made(wire)
    if data[:1] in CALLS:
        connection.data_received(_call(CALLS[data[:1]], data[1:]))
        [response] = _responses(wire.sent)
        return not response.HasField("status")
    _stream(connection, wire, data[1:])
    assert _cut(data[1:], len(data) or 1) == _cut(data[1:], 7)
    return not wire.closed


def _call(method: str, payload: bytes) -> bytes:
    request = ttrpc_pb2.Request(service=PLUGIN_SERVICE, method=method, payload=payload)
    return frames.message(TO_PLUGIN, 1, 1, request.SerializeToString())


def _stream(connection: Connection, wire: _Wire, data: bytes) -> None:
    """Sends the bytes in parts, as a socket may."""
    for start in range(0, len(data), 64):
        if not wire.closed:
            connection.data_received(data[start : start + 64])
    assert wire.closed == bool(connection.protocol_error)
    _responses(wire.sent)


def _responses(sent: bytes) -> list[ttrpc_pb2.Response]:
    """The responses; that of a fault in the plugin would be INTERNAL."""
    bodies = [body for _, payload in frames.frames().cut(sent) for body in _messages(payload)]
    found = [ttrpc_pb2.Response.FromString(body) for body in bodies]
    for response in found:
        assert response.status.code != Code.INTERNAL, response.status.message
    return found


def _messages(payload: bytes) -> list[bytes]:
    return [body for _, body in frames.messages().cut(payload)]


def _cut(data: bytes, size: int) -> tuple[list[tuple[frames.Header, bytes]], str]:
    """The frames and the error of a stream that is received in parts of a size."""
    cutter, pieces = frames.frames(), list[tuple[frames.Header, bytes]]()
    try:
        for start in range(0, len(data), size):
            pieces += cutter.cut(data[start : start + size])
    except frames.FrameError as error:
        return [], str(error)
    return pieces, ""
