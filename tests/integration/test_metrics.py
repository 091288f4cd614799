"""What Prometheus gets from a running daemon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import re
import socket
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.kubelet import exporter
from isolcpus_dp.kubelet.metrics import Metrics
from isolcpus_dp.simulator.kubelet import Kubelet, Pod

from .conftest import RESOURCE, Host, until
from .test_life import RefusingKubelet

StartKubelet = Callable[..., Awaitable[Kubelet]]
DOCS = Path(__file__).parents[2] / "docs" / "metrics"


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
    """By name and label values."""
    head, body = await exchange(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def counts(seen: Seen, name: str) -> dict[str, float]:
    """By result, of the one resource."""
    return {
        key[2]: value for key, value in seen.items() if key[:2] == (f"isolcpus_dp_{name}", RESOURCE)
    }


async def allocate(host: Host, *ids: str) -> None:
    """What a kubelet asks. Raises AioRpcError if it is refused."""
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        request = api.ContainerAllocateRequest(devices_ids=ids)
        await rpc.DevicePluginStub(channel).Allocate(
            api.AllocateRequest(container_requests=[request])
        )


async def test_metrics_tell_of_cpus_registrations_and_allocations(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    path = host.folder / "metrics.sock"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running():
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
        host.machine.set_offline(13)
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 3)
        with pytest.raises(grpc.aio.AioRpcError, match="CPU 13 is offline"):
            await allocate(host, "13")
        seen = await scrape(path)
        assert seen["isolcpus_dp_cpus", RESOURCE, "healthy"] == 3
        assert seen["isolcpus_dp_cpus", RESOURCE, "unhealthy"] == 1
        assert seen["isolcpus_dp_allocated_cpus", RESOURCE] == 2
        assert counts(seen, "registrations_total") == {"ok": 1, "refused": 0}
        assert counts(seen, "allocations_total") == {"ok": 1, "refused": 1}
        assert seen["isolcpus_dp_allocation_seconds_count", RESOURCE] == 2
        assert seen["isolcpus_dp_uevents_total",] >= 1
        kubelet.delete("owner")
        assert (await scrape(path))["isolcpus_dp_allocated_cpus", RESOURCE] == 0
    assert not path.exists()


async def test_counters_are_there_before_anything_has_happened(host: Host) -> None:
    path = host.folder / "metrics.sock"
    other = "[Pool dpdk]\nResourceName=example.com/dpdk\nCPUs=5\n"
    async with host.daemon(f"[Metrics]\nListen={path}\n{other}").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
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


async def test_registration_that_the_kubelet_refuses_is_counted_as_refused(
    host: Host, start_kubelet: StartKubelet
) -> None:
    await start_kubelet(kind=RefusingKubelet)
    path = host.folder / "metrics.sock"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        seen = await scrape(path)
    assert counts(seen, "registrations_total") == {"ok": 0, "refused": 1}
    assert counts(seen, "allocations_total") == {"ok": 0, "refused": 0}


async def test_alerts_and_dashboard_use_nothing_that_is_not_there(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    path = host.folder / "metrics.sock"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running():
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
        seen = await scrape(path)
    dashboard = json.dumps(json.loads((DOCS / "dashboard.json").read_text())).replace('\\"', '"')
    text = (DOCS / "alerts.yaml").read_text() + dashboard
    assert set(re.findall(r"isolcpus_dp_\w+", text)) <= {name for name, *_ in seen}
    chosen = set(re.findall(r'(isolcpus_dp_\w+)\{(?:state|result)="(\w+)"', text))
    assert len(chosen) == 4
    assert chosen <= {(name, labels[-1]) for name, *labels in seen if labels}


async def test_wrong_requests_get_an_answer_or_are_dropped(host: Host) -> None:
    path = host.folder / "metrics.sock"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        for request in (b"GET /other HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
            head, _ = await exchange(path, request)
            assert head.startswith("HTTP/1.0 404 ")
        with contextlib.suppress(ConnectionError):  # dropped before all of it was sent
            assert (await exchange(path, b"x" * 100_000))[0] == ""
        seen = {name for name, *_ in await scrape(path)}
        assert {"isolcpus_dp_build_info", "isolcpus_dp_cpus"} <= seen
        assert "isolcpus_dp_allocated_cpus" not in seen  # there is no kubelet that could tell
        assert len(daemon.runs) == 1


async def test_further_connections_are_closed_and_take_no_descriptors(host: Host) -> None:
    path = host.folder / "m"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        descriptors = Path(f"/proc/{daemon.current.pid}/fd")
        before = len(list(descriptors.iterdir()))
        idle = [await asyncio.open_unix_connection(str(path)) for _ in range(100)]
        closed = [asyncio.wait_for(reader.read(), 20) for reader, _ in idle[16:]]
        assert await asyncio.gather(*closed) == [b""] * 84
        assert not any(reader.at_eof() for reader, _ in idle[:16])
        assert len(list(descriptors.iterdir())) < before + 30
        for _, writer in idle:
            writer.close()
        await until(lambda: len(list(descriptors.iterdir())) < before + 5)
        assert await scrape(path)
    assert "Traceback" not in host.log


async def test_daemon_that_finds_another_one_leaves_its_metrics_alone(host: Host) -> None:
    path = host.folder / "m"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        second = await asyncio.to_thread(
            subprocess.run,
            host.command("--config", host.folder / "isolcpus-dp.conf"),
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert second.returncode == 1
        assert f"{host.endpoint} is held by process" in second.stderr
        assert await scrape(path)


async def test_scrape_under_way_when_the_daemon_ends_is_no_traceback(host: Host) -> None:
    path = host.folder / "m"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET")
        await asyncio.sleep(0.2)
    writer.close()
    assert "Traceback" not in host.log
    assert "Exception" not in host.log


async def test_query_is_passed_over_and_head_gets_the_head_alone(host: Host) -> None:
    path = host.folder / "metrics.sock"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        head, body = await exchange(path, b"GET /metrics?name[]=x HTTP/1.1\r\n\r\n")
        assert head.startswith("HTTP/1.0 200 OK\r\n")
        assert "isolcpus_dp_build_info" in body
        head, body = await exchange(path, b"HEAD /metrics HTTP/1.1\r\n\r\n")
        assert head.startswith("HTTP/1.0 200 OK\r\n")
        assert re.search(r"\r\nContent-Length: [1-9]", head)
        assert body == ""


async def test_address_that_is_taken_costs_the_metrics_and_not_the_plugin(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with host.daemon(f"[Metrics]\nListen=127.0.0.1:{port}\n").running() as daemon:
            await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
            assert len(daemon.runs) == 1
    assert host.log.splitlines()[0] == (
        "[Metrics] Listen=: cannot listen on it: Address already in use (while attempting to bind"
        f" on address ('127.0.0.1', {port})): use a free address of this host;"
        " the plugin runs without metrics"
    )


async def test_missing_prometheus_client_costs_the_metrics_and_not_the_plugin(
    host: Host, start_kubelet: StartKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Found before the installed one.
    absent = host.folder / "absent" / "prometheus_client.py"
    absent.parent.mkdir()
    absent.write_text("raise ModuleNotFoundError(name='prometheus_client')\n")
    monkeypatch.setenv("PYTHONPATH", str(absent.parent))
    kubelet = await start_kubelet()
    async with host.daemon("[Metrics]\nListen=127.0.0.1:1\n").running() as daemon:
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
        assert len(daemon.runs) == 1
    assert host.log.splitlines()[0] == (
        "[Metrics] Listen= needs prometheus-client: install python3-prometheus-client;"
        " the plugin runs without metrics"
    )


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics([RESOURCE], list, tmp_path)


async def test_address_in_a_sandbox_without_network_names_the_drop_in_that_it_takes(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: Any, **more: Any) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refused)
    async with exporter.serving(metrics, ("127.0.0.1", 9497)):
        monkeypatch.undo()
    assert caplog.messages == [
        "[Metrics] Listen=: cannot listen on it: Address family not supported by protocol:"
        " the unit's sandbox has no network unless a drop-in (systemctl edit isolcpus-dp) sets,"
        " in [Service], PrivateNetwork=no and"
        " RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 and"
        " IPAddressAllow=localhost; see isolcpus-dp.conf(5);"
        " the plugin runs without metrics"
    ]
    assert caplog.records[0].levelno == logging.ERROR


@pytest.mark.parametrize(
    ("listen", "complaint"),
    [
        (
            Path("/nowhere/metrics.sock"),
            "No such file or directory: the unit's sandbox allows a socket in /run/isolcpus-dp",
        ),
        (
            Path(f"/{'long' * 30}"),
            "AF_UNIX path too long: the unit's sandbox allows a socket in /run/isolcpus-dp",
        ),
    ],
    ids=["folder", "long"],
)
async def test_address_that_cannot_be_had_is_one_sentence(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, listen: Any, complaint: str
) -> None:
    async with exporter.serving(metrics, listen):
        pass
    assert caplog.messages == [
        f"[Metrics] Listen=: cannot listen on it: {complaint}; the plugin runs without metrics"
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_metrics_are_served_on_an_address(
    metrics: Metrics, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    async with exporter.serving(metrics, (host, port)):
        assert caplog.messages == []
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 200 OK\r\n")
        writer.close()


async def test_ordinary_file_in_the_place_of_the_socket_is_left_alone(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    async with exporter.serving(metrics, file):
        pass
    assert file.read_text() == "precious"
    assert "is already in use" in caplog.text
