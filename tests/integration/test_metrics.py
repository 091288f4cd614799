"""What Prometheus gets from a running daemon."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet, Pod

from .conftest import RESOURCE, Host

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


async def scrape(path: Path) -> dict[tuple[str, ...], float]:
    """By name and label values."""
    head, body = await exchange(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


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
        seen = await scrape(path)
        assert seen["isolcpus_dp_cpus", RESOURCE, "healthy"] == 3
        assert seen["isolcpus_dp_cpus", RESOURCE, "unhealthy"] == 1
        assert seen["isolcpus_dp_allocated_cpus", RESOURCE] == 2
        assert seen["isolcpus_dp_registrations_total", RESOURCE, "ok"] == 1
        assert seen["isolcpus_dp_allocations_total", RESOURCE, "ok"] == 1
        assert seen["isolcpus_dp_allocation_seconds_count", RESOURCE] == 1
        assert seen["isolcpus_dp_uevents_total",] >= 1
        with pytest.raises(AdmissionError):
            await kubelet.admit(Pod("greedy", {RESOURCE: 9}))
        kubelet.delete("owner")
        assert (await scrape(path))["isolcpus_dp_allocated_cpus", RESOURCE] == 0
        await start_kubelet()  # dashboards and alerts use no name that is not there
        used = set(re.findall(r"isolcpus_dp_\w+", (DOCS / "alerts.yaml").read_text()))
        used |= set(re.findall(r"isolcpus_dp_\w+", (DOCS / "dashboard.json").read_text()))
        assert used <= {name for name, *_ in seen}
        json.loads((DOCS / "dashboard.json").read_text())
    assert not path.exists()


async def test_wrong_requests_get_an_answer_or_are_dropped(host: Host) -> None:
    path = host.folder / "metrics.sock"
    async with host.daemon(f"[Metrics]\nListen={path}\n").running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        for request in (b"GET /other HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
            head, _ = await exchange(path, request)
            assert head.startswith("HTTP/1.0 404 ")
        assert (await exchange(path, b"x" * 100_000))[0] == ""
        seen = {name for name, *_ in await scrape(path)}
        assert {"isolcpus_dp_build_info", "isolcpus_dp_cpus"} <= seen
        assert "isolcpus_dp_allocated_cpus" not in seen  # there is no kubelet that could tell
        assert len(daemon.runs) == 1


async def test_address_that_is_taken_is_one_sentence(host: Host) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with host.daemon(f"[Metrics]\nListen=127.0.0.1:{port}\n").running() as daemon:
            run = await daemon.until(lambda run: run.exit_status is not None)
            assert run.exit_status == 1
            assert host.log.splitlines()[0].startswith(
                "[Metrics] Listen=: cannot listen there: Address already in use"
            )
