"""The device plugin's metrics: the numbers, and how Prometheus reads them.

Off unless configured, and not loaded then. prometheus-client keeps and renders the numbers; they
are served by `exporter`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from isolcpus_dp.kubelet import podresources
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.pool import Pool

# Seconds: an answer takes less than a millisecond, unless the host is overloaded.
_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


# What may become of a registration and of an Allocate call.
_RESULTS = ("ok", "refused")


class Metrics:
    """The numbers of one daemon that offers these resources.

    At the moment of a scrape, `pools` tells its pools, and the kubelet in `kubelet_dir` who holds
    what: nobody tells a device plugin that a container has ended.
    """

    def __init__(
        self, resources: Iterable[str], pools: Callable[[], Sequence[Pool]], kubelet_dir: Path
    ) -> None:
        self._kubelet_dir = kubelet_dir
        self._registry = CollectorRegistry()
        self._cpus = _Cpus(pools)
        self._registry.register(self._cpus)
        self.registrations = Counter(
            "isolcpus_dp_registrations",
            "Registrations with the kubelet.",
            ["resource", "result"],
            registry=self._registry,
        )
        self.allocations = Counter(
            "isolcpus_dp_allocations",
            "Allocate calls of the kubelet.",
            ["resource", "result"],
            registry=self._registry,
        )
        self.allocation_seconds = Histogram(
            "isolcpus_dp_allocation_seconds",
            "Time to answer an Allocate call.",
            ["resource"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.uevents = Counter(
            "isolcpus_dp_uevents",
            "CPU uevents received from the kernel.",
            registry=self._registry,
        )
        Gauge(
            "isolcpus_dp_start_time_seconds",
            "Start time of this daemon; changes() of it counts restarts.",
            registry=self._registry,
        ).set(time.time())
        Gauge(
            "isolcpus_dp_build_info",
            "Always 1; the label is the version.",
            ["version"],
            registry=self._registry,
        ).labels(_version()).set(1)
        for resource in resources:
            self._begin(resource)

    def _begin(self, resource: str) -> None:
        """Shows 0 from the start: for Prometheus, a counter that begins at 1 has not gone up."""
        for result in _RESULTS:
            self.registrations.labels(resource, result)
            self.allocations.labels(resource, result)
        self.allocation_seconds.labels(resource)

    def allocated(self, resource: str, result: str, seconds: float) -> None:
        """Notes an answer to Allocate: `result` is ok or refused."""
        self.allocations.labels(resource, result).inc()
        self.allocation_seconds.labels(resource).observe(seconds)

    def registered(self, resource: str, result: str) -> None:
        """Notes a registration: `result` is ok or refused."""
        self.registrations.labels(resource, result).inc()

    async def render(self) -> bytes:
        """All numbers, in the text format of Prometheus."""
        self._cpus.allocations = await self._allocations()
        return generate_latest(self._registry)

    async def _allocations(self) -> Sequence[Allocation] | None:
        try:
            return await podresources.ask(self._kubelet_dir)
        except podresources.Unseen:
            return None


class _Cpus:
    """The CPUs of each pool, counted when they are asked for."""

    allocations: Sequence[Allocation] | None = None  # unknown where no kubelet answers

    def __init__(self, pools: Callable[[], Sequence[Pool]]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        cpus = GaugeMetricFamily(
            "isolcpus_dp_cpus",
            "CPUs offered to the kubelet, by the health of their devices.",
            labels=["resource", "state"],
        )
        for pool in self._pools():
            healthy = pool.cpus_of(id for id, device in pool.devices.items() if device.healthy)
            cpus.add_metric([pool.resource_name, "healthy"], len(healthy))
            cpus.add_metric([pool.resource_name, "unhealthy"], len(pool.cpus - healthy))
        yield cpus
        if self.allocations is not None:
            yield self._allocated(self.allocations)

    def _allocated(self, allocations: Sequence[Allocation]) -> Metric:
        # Not a third state: these are healthy or not, too, and the states add up to the pool.
        cpus = GaugeMetricFamily(
            "isolcpus_dp_allocated_cpus",
            "CPUs allocated to containers, from the kubelet; absent while it does not answer.",
            labels=["resource"],
        )
        for pool in self._pools():
            held = [
                podresources.owned(pool, one)
                for one in allocations
                if one.resource == pool.resource_name
            ]
            cpus.add_metric([pool.resource_name], len(frozenset().union(*held)))
        return cpus


def _version() -> str:
    """The installed package's; unknown if the code is run from somewhere else."""
    try:
        return metadata.version("isolcpus-dp")
    except metadata.PackageNotFoundError:
        return "unknown"
