"""The connections of the metrics' HTTP server: slow, silent and numerous clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from isolcpus_dp.kubelet import exporter
from isolcpus_dp.kubelet.scrape import Answer, Query

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


class Metrics:
    """Answers with `body` while `answers` is set."""

    def __init__(self) -> None:
        self.body = b"up 1\n"
        self.queries: list[Query] = []
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.closed = False

    async def answer(self, query: Query) -> Answer:
        self.queries.append(query)
        self.asked.set()
        await self.answers.wait()
        return Answer([], self.body)

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.sock"


@pytest.fixture
async def metrics(path: Path) -> AsyncIterator[Metrics]:
    metrics = Metrics()
    async with exporter.serving(metrics, path):
        yield metrics
    assert metrics.closed
    assert not path.exists()


class Client:
    """A connection to the exporter."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> bytes:
        """All that it receives until the connection is closed."""
        try:
            return await asyncio.wait_for(self._reader.read(), 10)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def clients(path: Path, number: int, request: bytes = b"") -> AsyncIterator[list[Client]]:
    """Clients that have connected and sent a request, all before the exporter sees the first."""
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(number)]
    for one in sockets:
        one.connect(str(path))
        one.sendall(request)
    connected = [Client(*await asyncio.open_unix_connection(sock=one)) for one in sockets]
    yield connected
    for client in connected:
        client.close()


async def scrape(path: Path, request: bytes = REQUEST) -> bytes:
    async with clients(path, 1, request) as [client]:
        return await client.answer()


async def test_scrape_is_answered_and_closed(path: Path, metrics: Metrics) -> None:
    assert await scrape(path) == b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n"
    assert metrics.queries == [Query("/metrics", headers={"host": "x"})]


@pytest.mark.parametrize(
    "request_", [b"GET /x HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"x" * 9000]
)
async def test_metrics_are_not_asked_for_invalid_requests(
    path: Path, metrics: Metrics, request_: bytes
) -> None:
    assert (await scrape(path, request_)).startswith(b"HTTP/1.0 4")
    assert metrics.queries == []


@pytest.mark.usefixtures("metrics")
async def test_request_may_arrive_in_pieces(path: Path) -> None:
    async with clients(path, 1) as [client]:
        for byte in REQUEST:
            client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.answer()).startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.usefixtures("metrics")
async def test_silent_clients_do_not_lock_out_others(path: Path) -> None:
    async with clients(path, 40) as silent:
        assert (await scrape(path)).startswith(b"HTTP/1.0 200 OK\r\n")
        # The longest silent ones had to go for the later ones; the last ones are still connected.
        assert await asyncio.gather(*(client.answer() for client in silent[:24])) == [b""] * 24
        silent[-1].send(REQUEST)
        assert (await silent[-1].answer()).startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.usefixtures("metrics")
async def test_client_that_began_a_request_is_as_silent_as_others(path: Path) -> None:
    async with clients(path, 1) as [slow], clients(path, 15):
        slow.send(REQUEST[:5])
        assert (await scrape(path)).startswith(b"HTTP/1.0 200 OK\r\n")
        slow.send(REQUEST[5:6])
        assert await slow.answer() == b""


@pytest.mark.usefixtures("metrics")
async def test_slow_client_is_dropped_after_seconds(path: Path) -> None:
    """A byte now and then does not prolong the time that a request may take."""
    async with clients(path, 1) as [slow]:
        answered = asyncio.create_task(slow.answer())
        for byte in REQUEST:
            slow.send(bytes([byte]))
            done, _ = await asyncio.wait([answered], timeout=0.5)
            if done:
                break
        assert await answered == b""


async def test_client_that_does_not_read_is_dropped(path: Path, metrics: Metrics) -> None:
    metrics.body = b"x" * 10_000_000
    with socket.socket(socket.AF_UNIX) as unread:
        unread.connect(str(path))
        unread.send(REQUEST)
        await metrics.asked.wait()
        # Other clients get its place.
        async with clients(path, 40):
            metrics.body = b"up 1\n"
            assert (await scrape(path)).endswith(b"\r\n\r\nup 1\n")
        received = 0
        with suppress(ConnectionError):
            while data := unread.recv(1_000_000):
                received += len(data)
        assert received < 10_000_000


async def test_clients_wait_while_all_places_are_being_answered(
    path: Path, metrics: Metrics
) -> None:
    metrics.answers.clear()
    async with clients(path, 40, REQUEST) as waiting:
        await metrics.asked.wait()
        metrics.answers.set()
        answers = await asyncio.gather(*(client.answer() for client in waiting))
    assert [answer[:15] for answer in answers] == [b"HTTP/1.0 200 OK"] * 40


async def test_client_that_leaves_is_no_error(
    path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    metrics.answers.clear()
    async with clients(path, 2) as [early, late]:
        early.send(REQUEST[:5])
        late.send(REQUEST)
        await metrics.asked.wait()
    metrics.answers.set()
    assert (await scrape(path)).startswith(b"HTTP/1.0 200 OK\r\n")
    assert caplog.messages == []


async def test_end_closes_connections_silently(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    metrics.answers.clear()
    async with exporter.serving(metrics, path):
        silent, asking = [Client(*await asyncio.open_unix_connection(str(path))) for _ in range(2)]
        asking.send(REQUEST)
        await metrics.asked.wait()
    assert await silent.answer() == b""
    assert await asking.answer() == b""
    assert caplog.messages == []


async def test_dead_socket_of_an_earlier_worker_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with exporter.serving(Metrics(), path):
        assert (await scrape(path)).startswith(b"HTTP/1.0 200 OK\r\n")


@pytest.mark.usefixtures("metrics")
async def test_socket_of_another_process_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with exporter.serving(Metrics(), path):
        assert "the socket is already in use" in caplog.text
    assert (await scrape(path)).startswith(b"HTTP/1.0 200 OK\r\n")
