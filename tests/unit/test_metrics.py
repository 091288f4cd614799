"""The rendering of the metrics: formats, selection by name, and what is not valid."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet.scrape import Query, Refused

from .conftest import MakeUp

# Only these tests need it; it is not installed everywhere.
pytest.importorskip("prometheus_client")
from prometheus_client.openmetrics import parser as openmetrics

from isolcpus_dp.kubelet.metrics import Metrics

RESOURCE = "windriver.com/isolcpus"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
async def metrics(make_up: MakeUp, tmp_path: Path) -> AsyncIterator[Metrics]:
    """Those of a daemon with the CPUs 1, 2, 5 and 6, without a kubelet."""
    pools = pool.make(machine.read(make_up("2x2x2", {1, 2, 5, 6}).root), Config())
    metrics = Metrics([RESOURCE], lambda: pools, lambda: tmp_path)
    yield metrics
    await metrics.close()


async def test_format_is_text_unless_another_is_asked_for(metrics: Metrics) -> None:
    answer = await metrics.answer(Query("/metrics"))
    [content_type] = [value for name, value in answer.headers if name == "Content-Type"]
    assert content_type.startswith("text/plain; version=")
    lines = answer.body.decode().splitlines()
    assert [line for line in lines if line.startswith("isolcpus_dp_cpus")] == [
        f'isolcpus_dp_cpus{{resource="{RESOURCE}",state="healthy"}} 4.0',
        f'isolcpus_dp_cpus{{resource="{RESOURCE}",state="unhealthy"}} 0.0',
    ]
    assert "isolcpus_dp_allocated_cpus" not in answer.body.decode()


async def test_openmetrics_is_rendered_if_accepted(metrics: Metrics) -> None:
    metrics.allocated(RESOURCE, "ok", 0.0002)
    answer = await metrics.answer(Query("/metrics", headers={"accept": OPENMETRICS}))
    [content_type] = [value for name, value in answer.headers if name == "Content-Type"]
    assert content_type.startswith("application/openmetrics-text; version=")
    read = openmetrics.text_string_to_metric_families  # it is strict
    families = read(answer.body.decode())  # type: ignore[no-untyped-call]
    samples = {
        (sample.name, sample.labels.get("result")): sample.value
        for family in families
        for sample in family.samples
    }
    assert samples["isolcpus_dp_allocations_total", "ok"] == 1
    assert samples["isolcpus_dp_allocation_seconds_count", None] == 1


async def test_answer_is_compressed_if_accepted(metrics: Metrics) -> None:
    answer = await metrics.answer(Query("/metrics", headers={"accept-encoding": "gzip"}))
    if ("Content-Encoding", "gzip") not in answer.headers:
        pytest.skip("this prometheus-client does not compress")
    assert b"isolcpus_dp_build_info" in gzip.decompress(answer.body)


@pytest.mark.parametrize("name", ["isolcpus_dp_cpus", "isolcpus_dp_allocations_total"])
async def test_metrics_can_be_selected_by_name(metrics: Metrics, name: str) -> None:
    answer = await metrics.answer(Query("/metrics", f"name[]={name}"))
    lines = [line for line in answer.body.decode().splitlines() if not line.startswith("#")]
    assert len(lines) == 2
    assert all(line.startswith(f"{name}{{") for line in lines)


async def test_version_that_is_no_number_is_refused(metrics: Metrics) -> None:
    query = Query("/metrics", headers={"accept": "application/openmetrics-text;version=a"})
    try:
        body = (await metrics.answer(query)).body
    except Refused as refused:
        body = refused.message
    # Older versions of prometheus-client do not compare versions.
    assert body.startswith((b"HTTP/1.0 400 Bad Request\r\n", b"# HELP isolcpus_dp_"))
