"""Runtimes that accept and never answer, answer garbage, close halfway, or send too much."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.integration.pin.conftest import StartRuntime, start_runtime
from tests.testbed.daemon import supervisor
from tests.testbed.host import Host
from tests.testbed.wait import until

__all__ = ["start_runtime"]  # a fixture

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

IMPATIENT = """
from isolcpus_dp.nri import session
setattr(session, "_REGISTER_SECONDS", 1.0)
"""

TEN_MIB = 10 << 20
FRAME = struct.Struct(">II")


async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def answer_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff" * 4096)
    await reader.read()


async def close_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(FRAME.pack(2, 100) + b"\0" * 50)


async def send_ten_mib(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(FRAME.pack(1, TEN_MIB) + bytes(TEN_MIB))
        await writer.drain()


@contextlib.asynccontextmanager
async def listening(host: Host, serve: Serve) -> AsyncIterator[None]:
    """A process that listens on the runtime's socket."""

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    host.nri_socket.parent.mkdir(exist_ok=True)
    server = await asyncio.start_unix_server(serve_and_close, str(host.nri_socket))
    yield
    server.close()


REJECTED = "the runtime rejected the plugin: {}; trying again in 5 s, or when it creates a new"
PROTOCOL = "protocol error: a message of {} bytes; allowed are at most 4194314; connecting again"


@pytest.mark.parametrize(
    ("serve", "message"),
    [
        (never_answer, REJECTED.format("no answer")),
        (
            close_halfway,
            REJECTED.format("it closed the connection before it listed its containers"),
        ),
        (answer_garbage, PROTOCOL.format(0xFFFFFFFF)),
        (send_ten_mib, PROTOCOL.format(TEN_MIB)),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
async def test_runtime_that_speaks_no_nri_is_one_sentence(
    host: Host, start_runtime: StartRuntime, serve: Serve, message: str
) -> None:
    async with supervisor(host, "pin", prelude=IMPATIENT).running() as daemon:
        async with listening(host, serve):
            await until(lambda: message in host.log)
        await (await start_runtime()).until_connected()
        assert len(daemon.runs) == 1
    assert host.log.count(message) == 1
    assert "Traceback" not in host.log
