"""The Lister, which asks the kubelet for the metrics, against a kubelet in this process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from isolcpus_dp.api import podresources_pb2 as api
from isolcpus_dp.api import podresources_pb2_grpc as rpc
from isolcpus_dp.kubelet import paths
from isolcpus_dp.kubelet.podresources import Allocation, Lister

OWNER = Allocation("default", "owner", "main", "example.com/cpu", ("1", "9"))
LISTED = api.ListPodResourcesResponse(
    pod_resources=[
        api.PodResources(
            name="owner",
            namespace="default",
            containers=[
                api.ContainerResources(
                    name="main",
                    devices=[
                        api.ContainerDevices(resource_name="example.com/cpu", device_ids=["1", "9"])
                    ],
                )
            ],
        )
    ]
)


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Lists(rpc.PodResourcesListerServicer):
    """Counts the List calls; answers them while `answers` is set."""

    def __init__(self) -> None:
        self.calls = 0
        self.called = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self.is_busy = False

    async def List(
        self,
        request: api.ListPodResourcesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> api.ListPodResourcesResponse:
        self.calls += 1
        self.called.set()
        await self.answers.wait()
        if self.is_busy:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        return LISTED

    async def GetAllocatableResources(
        self,
        request: api.AllocatableResourcesRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> api.AllocatableResourcesResponse:
        raise NotImplementedError


class Kubelet:
    """Serves Lists at the path of the kubelet's socket, and counts the connections to it."""

    def __init__(self, directory: Path) -> None:
        self.lists = Lists()
        self.connections = 0
        self.path = paths.pod_resources_socket(directory)
        self.path.parent.mkdir(exist_ok=True)
        self._behind = directory / "behind.sock"
        self._writers: list[asyncio.StreamWriter] = []
        self._grpc = grpc.aio.server()
        rpc.add_PodResourcesListerServicer_to_server(self.lists, self._grpc)
        self._grpc.add_insecure_port(f"unix:{self._behind}")
        self.closed = asyncio.Event()  # a client has closed its connection

    async def start(self) -> None:
        await self._grpc.start()
        self._server = await asyncio.start_unix_server(self._connected, str(self.path))

    async def stop(self) -> None:
        """The socket remains, as that of a killed process does."""
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._grpc.stop(grace=None)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        behind, to_behind = await asyncio.open_unix_connection(str(self._behind))
        self._writers += [writer, to_behind]
        await asyncio.gather(self._relay(reader, to_behind), self._relay(behind, writer))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        self.closed.set()
        writer.close()


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Kubelet]:
    kubelet = Kubelet(tmp_path)
    await kubelet.start()
    yield kubelet
    await kubelet.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def lister(tmp_path: Path, clock: Clock) -> AsyncIterator[Lister]:
    lister = Lister(lambda: tmp_path, clock)
    yield lister
    await lister.close()


async def test_answer_is_kept_for_a_second(kubelet: Kubelet, lister: Lister, clock: Clock) -> None:
    for now in (100.0, 100.5, 100.9, 101.0, 101.9, 102.5):
        clock.now = now
        assert await lister.allocations() == [OWNER]
    assert kubelet.lists.calls == 3
    assert kubelet.connections == 1


async def test_concurrent_callers_share_a_call(kubelet: Kubelet, lister: Lister) -> None:
    kubelet.lists.answers.clear()
    callers = [asyncio.create_task(lister.allocations()) for _ in range(8)]
    await kubelet.lists.called.wait()
    callers.pop(0).cancel()  # the others wait on
    kubelet.lists.answers.set()
    assert await asyncio.gather(*callers) == [[OWNER]] * 7
    assert kubelet.lists.calls == 1


async def test_failure_is_kept_for_a_second(kubelet: Kubelet, lister: Lister, clock: Clock) -> None:
    kubelet.lists.is_busy = True
    for _ in range(5):
        assert await lister.allocations() is None
    assert kubelet.lists.calls == 1
    kubelet.lists.is_busy = False
    assert await lister.allocations() is None
    clock.now += 1
    assert await lister.allocations() == [OWNER]
    assert kubelet.lists.calls == 2


async def test_kubelet_that_starts_is_asked_a_second_later(
    tmp_path: Path, lister: Lister, clock: Clock
) -> None:
    assert await lister.allocations() is None
    kubelet = Kubelet(tmp_path)
    await kubelet.start()
    assert await lister.allocations() is None
    clock.now += 1
    assert await lister.allocations() == [OWNER]
    await kubelet.stop()


async def test_restarted_kubelet_is_asked_without_delay(
    tmp_path: Path, kubelet: Kubelet, lister: Lister, clock: Clock
) -> None:
    assert await lister.allocations() == [OWNER]
    await kubelet.stop()
    for _ in range(3):  # gRPC would wait longer after each failed attempt
        clock.now += 1
        assert await lister.allocations() is None
    kubelet.path.unlink(missing_ok=True)  # Python 3.13 has removed it
    again = Kubelet(tmp_path)
    await again.start()
    clock.now += 1
    assert await lister.allocations() == [OWNER]
    await again.stop()


async def test_recreated_socket_is_used_while_the_old_kubelet_runs(
    tmp_path: Path, kubelet: Kubelet, lister: Lister, clock: Clock
) -> None:
    assert await lister.allocations() == [OWNER]
    kubelet.path.unlink(missing_ok=True)  # Python 3.13 has removed it
    again = Kubelet(tmp_path)
    await again.start()
    clock.now += 1
    assert await lister.allocations() == [OWNER]
    assert (kubelet.lists.calls, again.lists.calls) == (1, 1)
    await again.stop()


async def test_unused_connection_is_closed(tmp_path: Path, kubelet: Kubelet, clock: Clock) -> None:
    lister = Lister(lambda: tmp_path, clock, idle_seconds=0)
    assert await lister.allocations() == [OWNER]
    await asyncio.wait_for(kubelet.closed.wait(), 10)
    clock.now += 1
    assert await lister.allocations() == [OWNER]
    assert kubelet.connections == 2
    await lister.close()


async def test_lister_can_be_closed_during_a_call(kubelet: Kubelet, tmp_path: Path) -> None:
    lister = Lister(lambda: tmp_path)
    kubelet.lists.answers.clear()
    caller = asyncio.create_task(lister.allocations())
    await kubelet.lists.called.wait()
    await lister.close()
    with pytest.raises(asyncio.CancelledError):
        await caller
    kubelet.lists.answers.set()
