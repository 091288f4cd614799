"""The machines and clients of the programs in bench/."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench.processes import clients, plugin
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc


class Recording(rpc.DevicePluginServicer):
    """Records calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []  # the method, and the number of devices

    def GetPreferredAllocation(
        self, request: api.PreferredAllocationRequest, context: Any
    ) -> api.PreferredAllocationResponse:
        [wish] = request.container_requests
        assert wish.allocation_size == 4
        self.calls.append(("GetPreferredAllocation", len(wish.available_deviceIDs)))
        return api.PreferredAllocationResponse()

    def Allocate(self, request: api.AllocateRequest, context: Any) -> api.AllocateResponse:
        [container] = request.container_requests
        self.calls.append(("Allocate", len(container.devices_ids)))
        return api.AllocateResponse()


@pytest.fixture
def served() -> Iterator[tuple[Recording, Path]]:
    recording = Recording()  # type: ignore[abstract]  # it has only what clients call
    server = grpc.server(ThreadPoolExecutor(1))
    rpc.add_DevicePluginServicer_to_server(recording, server)
    with tempfile.TemporaryDirectory() as name:  # short, because it contains a socket
        endpoint = Path(name) / "s"
        server.add_insecure_port(f"unix:{endpoint}")
        server.start()
        yield recording, endpoint
        server.stop(None).wait()


IDS = [str(cpu) for cpu in range(8)]


def test_each_client_calls_as_often_as_it_is_told(served: tuple[Recording, Path]) -> None:
    recording, endpoint = served
    done = clients.call(endpoint, "GetPreferredAllocation", IDS, clients=3, number=5)
    assert recording.calls == [("GetPreferredAllocation", 8)] * 15
    assert len(done.times) == 15
    assert 0 < min(done.times) <= max(done.times) <= done.whole


def test_allocate_is_for_four_devices(served: tuple[Recording, Path]) -> None:
    recording, endpoint = served
    clients.call(endpoint, "Allocate", IDS, clients=1, number=2)
    assert recording.calls == [("Allocate", 4)] * 2


def test_rate_is_that_of_all_clients() -> None:
    assert clients.Calls([0.5, 0.5], 0.25).rate == 8.0


def test_call_that_fails_is_an_error() -> None:
    server = grpc.server(ThreadPoolExecutor(1))  # without a service: UNIMPLEMENTED
    with tempfile.TemporaryDirectory() as name:
        server.add_insecure_port(f"unix:{name}/s")
        server.start()
        with pytest.raises(grpc.RpcError):
            clients.call(Path(name) / "s", "Allocate", IDS, clients=1, number=1)
        server.stop(None).wait()


@pytest.mark.parametrize(("cpus", "nodes"), [(8, 1), (32, 2), (128, 2), (512, 8), (2048, 8)])
def test_machine_has_the_cpus_that_its_name_says(cpus: int, nodes: int) -> None:
    places = plugin.places(cpus)
    assert sorted(place.cpu for place in places) == list(range(cpus))
    assert len({place.node for place in places}) == nodes
