"""Calls over a connection, and the handling of invalid ones."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolcpus_dp.api import nri_pb2, ttrpc_pb2
from isolcpus_dp.nri import frames
from isolcpus_dp.nri.ttrpc import Answer, CallError, Connection, Lost

Pair = Callable[[Answer, Answer], "asyncio.Future[tuple[Connection, Connection]]"]


def echo(service: str, method: str, payload: bytes) -> bytes:
    return f"{service}/{method}:".encode() + payload


def refuse(service: str, method: str, payload: bytes) -> bytes:
    raise CallError(12, f"no {method}")


def fail(service: str, method: str, payload: bytes) -> bytes:
    raise ZeroDivisionError("a bug")


def parse(service: str, method: str, payload: bytes) -> bytes:
    return nri_pb2.PodSandbox.FromString(payload).name.encode()


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    """Makes both ends of a connection, each with its function that answers calls."""
    servers: list[asyncio.AbstractServer] = []

    async def pair(server: Answer, client: Answer = refuse) -> tuple[Connection, Connection]:
        path = tmp_path / f"{len(servers)}.sock"
        accepted: asyncio.Queue[Connection] = asyncio.Queue()

        def accept() -> Connection:
            connection = Connection(1, 2, server)
            accepted.put_nowait(connection)
            return connection

        loop = asyncio.get_running_loop()
        servers.append(await loop.create_unix_server(accept, str(path)))
        _, client_end = await loop.create_unix_connection(
            lambda: Connection(2, 1, client), str(path)
        )
        return await accepted.get(), client_end

    yield pair
    for server in servers:
        server.close()


async def call(connection: Connection, payload: bytes = b"", seconds: float = 5) -> bytes:
    return await connection.call("a.Service", "Do", payload, seconds)


async def test_both_ends_call_each_other_at_once(connect: Pair) -> None:
    server, client = await connect(echo, echo)
    answers = await asyncio.gather(
        *(call(end, str(number).encode()) for number in range(50) for end in (server, client))
    )
    assert answers == [f"a.Service/Do:{number}".encode() for number in range(50) for _ in range(2)]


async def test_call_error_has_status_and_message(connect: Pair) -> None:
    _, client = await connect(refuse, refuse)
    with pytest.raises(CallError, match="no Do") as caught:
        await call(client)
    assert caught.value.code == 12


async def test_bug_in_an_answer_does_not_end_the_connection(connect: Pair) -> None:
    _, client = await connect(fail, refuse)
    for _ in range(2):
        with pytest.raises(CallError, match="ZeroDivisionError: a bug") as caught:
            await call(client)
        assert caught.value.code == 13


async def test_invalid_protobuf_is_an_invalid_argument(connect: Pair) -> None:
    _, client = await connect(parse, refuse)
    with pytest.raises(CallError) as caught:
        await call(client, b"\xff\xff\xff")
    assert caught.value.code == 3
    assert await call(client, b"\x12\x01x") == b"x"


async def test_call_ends_with_the_connection(connect: Pair) -> None:
    server, client = await connect(echo, refuse)
    await call(client)
    waiting = asyncio.ensure_future(call(client))
    server.close()
    with pytest.raises(Lost):
        await waiting
    with pytest.raises(Lost):
        await call(client)
    assert client.lost.is_set()


async def test_call_without_an_answer_times_out(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    silent = await loop.create_unix_server(asyncio.Protocol, str(tmp_path / "silent.sock"))
    _, client = await loop.create_unix_connection(
        lambda: Connection(2, 1, refuse), str(tmp_path / "silent.sock")
    )
    with pytest.raises(asyncio.TimeoutError):
        await call(client, seconds=0.05)
    client.close()
    silent.close()


class Wire(asyncio.Transport):
    """Stores the written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written += data

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
async def wired() -> tuple[Connection, Wire]:
    connection, wire = Connection(1, 2, echo), Wire()
    connection.connection_made(wire)
    return connection, wire


def request(stream: int, payload: bytes = b"") -> bytes:
    body = ttrpc_pb2.Request(service="s", method="m", payload=payload).SerializeToString()
    return frames.message(1, stream, 1, body)


def answered(wire: Wire) -> dict[int, ttrpc_pb2.Response]:
    cutter, messages = frames.frames(), frames.messages()
    return {
        header[1]: ttrpc_pb2.Response.FromString(body)
        for _, payload in cutter.cut(wire.written)
        for header, body in messages.cut(payload)
    }


async def test_answer_has_the_stream_of_its_request(wired: tuple[Connection, Wire]) -> None:
    connection, wire = wired
    connection.data_received(request(7, b"x") + request(9, b"y"))
    assert {stream: one.payload for stream, one in answered(wire).items()} == {
        7: b"s/m:x",
        9: b"s/m:y",
    }


async def test_unexpected_frames_are_ignored(wired: tuple[Connection, Wire]) -> None:
    connection, wire = wired
    connection.data_received(
        frames.message(5, 1, 1, b"another logical connection")
        + frames.message(1, 1, 3, b"streaming data")
        + frames.message(2, 1, 1, b"a request where answers come")
        + frames.message(2, 99, 2, b"an answer to nothing")
        + request(3)
    )
    assert list(answered(wire)) == [3]


async def test_malformed_request_gets_an_error(
    wired: tuple[Connection, Wire],
) -> None:
    connection, wire = wired
    connection.data_received(frames.message(1, 1, 1, b"\xff\xff") + request(3))
    assert answered(wire)[1].status.code == 3
    assert answered(wire)[3].payload == b"s/m:"


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x04\x12\x02\xff\xfe"], ids=["bytes", "text"])
async def test_malformed_answer_is_an_error_of_the_call(
    wired: tuple[Connection, Wire], body: bytes
) -> None:
    connection, _ = wired
    call = asyncio.create_task(connection.call("s", "m", b"", 20))
    await asyncio.sleep(0)
    connection.data_received(frames.message(2, 1, 2, body))
    with pytest.raises(CallError, match="invalid response"):
        await call


async def test_too_long_answer_becomes_an_error() -> None:
    connection, wire = Connection(1, 2, lambda *_: bytes(5 << 20)), Wire()
    connection.connection_made(wire)
    connection.data_received(request(1))
    assert answered(wire)[1].status.code == 8


async def test_too_long_frame_closes_the_connection(wired: tuple[Connection, Wire]) -> None:
    connection, wire = wired
    connection.data_received(struct.pack(">II", 1, 5 << 20))
    assert wire.aborted


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_no_bytes_raise_an_exception(parts: list[bytes]) -> None:
    async def receive() -> None:
        connection = Connection(1, 2, parse)
        connection.connection_made(Wire())
        for part in parts:
            connection.data_received(part)
            connection.data_received(frames.message(1, 1, 1, part))

    asyncio.new_event_loop().run_until_complete(receive())
