"""The metrics that a running daemon serves to Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, is_ready, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .conftest import second_daemon
from .kubelets import RefusingKubelet

DOCS = Path(__file__).parents[3] / "docs" / "metrics"


@pytest.fixture
def path(host: Host) -> Path:
    """The socket on which the daemon serves its metrics."""
    return host.directory / "metrics.sock"


@pytest.fixture
def configuration(path: Path) -> str:
    return f"[Metrics]\nListen={path}\n"


async def exchange(path: Path, request: bytes) -> tuple[str, str]:
    """The head and the body of the answer to a request."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    answer = (await asyncio.wait_for(reader.read(), 10)).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return head, body


Seen = dict[tuple[str, ...], float]


async def scrape(path: Path) -> Seen:
    """The served values, by name and label values."""
    head, body = await exchange(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def counts(seen: Seen, name: str) -> dict[str, float]:
    """The values of a counter of RESOURCE, by result."""
    return {
        key[2]: value for key, value in seen.items() if key[:2] == (f"isolcpus_dp_{name}", RESOURCE)
    }


async def until_allocated(path: Path, cpus: int) -> None:
    """Waits for a number of allocated CPUs: the kubelet's answer is kept for a second."""
    for _ in range(100):
        if (await scrape(path)).get(("isolcpus_dp_allocated_cpus", RESOURCE)) == cpus:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not {cpus} CPUs after 10 s")


async def allocate(host: Host, *ids: str) -> None:
    """Calls Allocate as a kubelet does. Raises AioRpcError if it is rejected."""
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        request = api.ContainerAllocateRequest(devices_ids=ids)
        await rpc.DevicePluginStub(channel).Allocate(
            api.AllocateRequest(container_requests=[request])
        )


async def test_metrics_count_cpus_registrations_and_allocations(
    host: Host, kubelet: Kubelet, path: Path, configuration: str
) -> None:
    async with registered_with(supervisor(host, "serve", configuration), kubelet):
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
        host.machine.set_offline(13)
        await has_devices(kubelet, 3)
        with pytest.raises(grpc.aio.AioRpcError, match="CPU 13 is offline"):
            await allocate(host, "13")
        await until_allocated(path, 2)
        seen = await scrape(path)
        assert seen["isolcpus_dp_cpus", RESOURCE, "healthy"] == 3
        assert seen["isolcpus_dp_cpus", RESOURCE, "unhealthy"] == 1
        assert seen["isolcpus_dp_allocated_cpus", RESOURCE] == 2
        assert counts(seen, "registrations_total") == {"ok": 1, "refused": 0}
        assert counts(seen, "allocations_total") == {"ok": 1, "refused": 1}
        assert seen["isolcpus_dp_allocation_seconds_count", RESOURCE] == 2
        assert seen["isolcpus_dp_uevents_total",] >= 1
        kubelet.delete("owner")
        await until_allocated(path, 0)
    assert not path.exists()


async def test_counters_start_at_zero(host: Host, path: Path, configuration: str) -> None:
    other = "[Pool dpdk]\nResourceName=example.com/dpdk\nCPUs=5\n"
    async with supervisor(host, "serve", configuration + other).running() as daemon:
        await daemon.worker(is_ready)
        seen = await scrape(path)
    assert {key: value for key, value in seen.items() if "_total" in key[0]} == {
        ("isolcpus_dp_registrations_total", RESOURCE, "ok"): 0,
        ("isolcpus_dp_registrations_total", RESOURCE, "refused"): 0,
        ("isolcpus_dp_registrations_total", "example.com/dpdk", "ok"): 0,
        ("isolcpus_dp_registrations_total", "example.com/dpdk", "refused"): 0,
        ("isolcpus_dp_allocations_total", RESOURCE, "ok"): 0,
        ("isolcpus_dp_allocations_total", RESOURCE, "refused"): 0,
        ("isolcpus_dp_allocations_total", "example.com/dpdk", "ok"): 0,
        ("isolcpus_dp_allocations_total", "example.com/dpdk", "refused"): 0,
        ("isolcpus_dp_uevents_total",): 0,
    }
    assert seen["isolcpus_dp_allocation_seconds_count", "example.com/dpdk"] == 0


async def test_rejected_registration_is_counted(
    host: Host, start_kubelet: StartKubelet, path: Path, configuration: str
) -> None:
    await start_kubelet(kind=RefusingKubelet)
    async with supervisor(host, "serve", configuration).running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        seen = await scrape(path)
    assert counts(seen, "registrations_total") == {"ok": 0, "refused": 1}
    assert counts(seen, "allocations_total") == {"ok": 0, "refused": 0}


@pytest.mark.usefixtures("registered")
async def test_alerts_and_dashboard_use_only_served_metrics(path: Path) -> None:
    await until_allocated(path, 0)
    seen = await scrape(path)
    dashboard = json.dumps(json.loads((DOCS / "dashboard.json").read_text())).replace('\\"', '"')
    text = (DOCS / "alerts.yaml").read_text() + dashboard
    assert set(re.findall(r"isolcpus_dp_\w+", text)) <= {name for name, *_ in seen}
    chosen = set(re.findall(r'(isolcpus_dp_\w+)\{(?:state|result)="(\w+)"', text))
    assert len(chosen) == 4
    assert chosen <= {(name, labels[-1]) for name, *labels in seen if labels}


async def test_invalid_requests_get_an_error(path: Path, serving: Supervisor) -> None:
    for request, status in {
        b"GET /other HTTP/1.1": "404 Not Found",
        b"POST / HTTP/1.1": "405 Method Not Allowed",
        b"": "400 Bad Request",
    }.items():
        head, body = await exchange(path, request + b"\r\n\r\n")
        assert head.startswith(f"HTTP/1.0 {status}\r\n")
        assert body
    with contextlib.suppress(ConnectionError):  # closed before all of it was sent
        assert (await exchange(path, b"x" * 100_000))[0].startswith("HTTP/1.0 431 ")
    seen = {name for name, *_ in await scrape(path)}
    assert {"isolcpus_dp_build_info", "isolcpus_dp_cpus"} <= seen
    assert "isolcpus_dp_allocated_cpus" not in seen  # known only with a kubelet
    assert len(serving.workers) == 1


async def test_silent_clients_are_dropped_for_new_ones(
    host: Host, path: Path, configuration: str
) -> None:
    async with supervisor(host, "serve", configuration).running() as daemon:
        worker = await daemon.worker(is_ready)
        descriptors = Path(f"/proc/{worker.pid}/fd")
        before = len(list(descriptors.iterdir()))
        silent = [await asyncio.open_unix_connection(str(path)) for _ in range(100)]
        assert await scrape(path)
        dropped = [asyncio.wait_for(reader.read(), 20) for reader, _ in silent]
        assert len(list(descriptors.iterdir())) < before + 30
        assert await asyncio.gather(*dropped) == [b""] * 100
        for _, writer in silent:
            writer.close()
        await until(lambda: len(list(descriptors.iterdir())) < before + 5)
        assert await scrape(path)
    assert "Traceback" not in host.log


@pytest.mark.usefixtures("serving")
async def test_second_daemon_does_not_replace_the_metrics_socket(
    host: Host, path: Path, configuration: str
) -> None:
    command = host.command("serve", "--config", host.configure(configuration))
    async with second_daemon(host, command) as log:
        await until(lambda: f"{host.endpoint} is held by process" in log())
        await asyncio.sleep(0.5)
    assert await scrape(path)


async def test_unfinished_scrape_at_the_end_logs_no_traceback(
    host: Host, path: Path, configuration: str
) -> None:
    async with supervisor(host, "serve", configuration).running() as daemon:
        await daemon.worker(is_ready)
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET")
        await asyncio.sleep(0.2)
    writer.close()
    assert "Traceback" not in host.log
    assert "Exception" not in host.log


@pytest.mark.usefixtures("serving")
async def test_head_gets_no_body(path: Path) -> None:
    head, body = await exchange(path, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\n")
    assert re.search(r"\r\nContent-Length: [1-9]", head)
    assert body == ""
