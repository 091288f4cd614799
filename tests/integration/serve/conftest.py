"""A host with three isolated cores on each NUMA node, and a second resource."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.machine import regular
from tests.testbed.host import RESOURCE, Host, made_up_host

DPDK = "example.com/isolcpus-dpdk"
TWO_POOLS = f"""[Pool dpdk]
ResourceName={DPDK}
CPUs=1-3,9-11
"""


@pytest.fixture
def roomy() -> Iterator[Host]:
    """2 NUMA nodes of 4 cores with 2 threads; three cores of each are isolated, such as 1,9."""
    with made_up_host(regular(2, 4, 2), {1, 2, 3, 9, 10, 11, 5, 6, 7, 13, 14, 15}) as host:
        yield host


@contextlib.asynccontextmanager
async def second_daemon(host: Host, command: list[str]) -> AsyncIterator[Callable[[], str]]:
    """Runs another daemon on the host; yields a function that returns its log so far."""
    file = host.directory / "second-log"
    with file.open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stderr=log)
    try:
        yield file.read_text
    finally:
        process.terminate()
        await process.wait()


async def has(kubelet: Kubelet, **healthy: int) -> None:
    """Waits until the kubelet has these numbers of healthy devices."""
    names = {"plugin": RESOURCE, "dpdk": DPDK}
    await kubelet.until(
        lambda: all(kubelet.allocatable(names[name]) == count for name, count in healthy.items())
    )


async def next_message(stream: Any) -> api.ListAndWatchResponse:
    """The next message of a ListAndWatch stream."""
    message = await stream.read()
    assert isinstance(message, api.ListAndWatchResponse)
    return message
