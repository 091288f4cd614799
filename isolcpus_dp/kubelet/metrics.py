"""The device plugin's metrics for Prometheus.

This module is loaded only if metrics are configured. prometheus-client stores the numbers, and its
WSGI application, called here without its server, renders them in the format that a scrape accepts;
`exporter` serves them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric

from isolcpus_dp import __version__
from isolcpus_dp.kubelet import podresources, scrape

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.podresources import Allocation
    from isolcpus_dp.pool import Pool

# In seconds. An answer takes less than a millisecond, unless the host is overloaded.
_BUCKETS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


# The results of a registration and of an Allocate call.
_RESULTS = ("ok", "refused")


class Metrics:
    """The metrics of one daemon that offers these resources.

    For each scrape, `pools` is called, and the kubelet in its root directory is asked for
    allocations unless its last answer is less than a second old: a device plugin is not notified
    when a container ends.
    """

    def __init__(
        self,
        resources: Iterable[str],
        pools: Callable[[], Sequence[Pool]],
        kubelet_root: Callable[[], Path],
    ) -> None:
        self._lister = podresources.Lister(kubelet_root)
        self._registry = CollectorRegistry()
        self._cpus = _Cpus(pools)
        self._registry.register(self._cpus)
        self._application = make_wsgi_app(self._registry)
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
        ).labels(__version__).set(1)
        for resource in resources:
            self._begin(resource)

    def _begin(self, resource: str) -> None:
        """Creates the counters with 0: Prometheus sees no increase if one starts at 1."""
        for result in _RESULTS:
            self.registrations.labels(resource, result)
            self.allocations.labels(resource, result)
        self.allocation_seconds.labels(resource)

    def allocated(self, resource: str, result: str, seconds: float) -> None:
        """Counts an answer to Allocate; `result` is ok or refused."""
        self.allocations.labels(resource, result).inc()
        self.allocation_seconds.labels(resource).observe(seconds)

    def registered(self, resource: str, result: str) -> None:
        """Counts a registration; `result` is ok or refused."""
        self.registrations.labels(resource, result).inc()

    async def answer(self, query: scrape.Query) -> scrape.Answer:
        """The metrics in the format that the query accepts. Raises scrape.Refused."""
        self._cpus.allocations = await self._lister.allocations()
        return self._rendered(query)

    async def close(self) -> None:
        """Closes the connection to the kubelet."""
        await self._lister.close()

    def _rendered(self, query: scrape.Query) -> scrape.Answer:
        headers: list[tuple[str, str]] = []

        def start_response(status: str, its_headers: list[tuple[str, str]]) -> None:
            headers.extend(its_headers)

        environment = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": query.path,
            "QUERY_STRING": query.parameters,
            "HTTP_ACCEPT": query.headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": query.headers.get("accept-encoding", ""),
        }
        try:
            body = b"".join(self._application(environment, start_response))
        except (TypeError, ValueError) as error:
            # prometheus-client cannot compare versions that are not numbers.
            raise scrape.Refused(
                HTTPStatus.BAD_REQUEST, f"the query or the Accept header is not valid: {error}"
            ) from error
        return scrape.Answer(headers, body)


class _Cpus:
    """The CPUs of each pool, counted at each scrape."""

    allocations: Sequence[Allocation] | None = None  # None if the kubelet did not answer

    def __init__(self, pools: Callable[[], Sequence[Pool]]) -> None:
        self._pools = pools

    def describe(self) -> Iterable[Metric]:
        """The metrics without values: a scrape can ask for some of them by name."""
        return [_offered_cpus(), _allocated_cpus()]

    def collect(self) -> Iterable[Metric]:
        offered, allocated = _offered_cpus(), _allocated_cpus()
        for pool in self._pools():
            healthy = pool.cpus_of(
                device_id for device_id, device in pool.devices.items() if device.healthy
            )
            offered.add_metric([pool.resource_name, "healthy"], len(healthy))
            offered.add_metric([pool.resource_name, "unhealthy"], len(pool.cpus - healthy))
            held = [
                podresources.owned(pool, one)
                for one in self.allocations or ()
                if one.resource == pool.resource_name
            ]
            allocated.add_metric([pool.resource_name], len(frozenset().union(*held)))
        yield offered
        if self.allocations is not None:
            yield allocated


def _offered_cpus() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "isolcpus_dp_cpus",
        "CPUs offered to the kubelet, by the health of their devices.",
        labels=["resource", "state"],
    )


def _allocated_cpus() -> GaugeMetricFamily:
    # Not a state of isolcpus_dp_cpus: allocated CPUs are healthy or unhealthy as well.
    return GaugeMetricFamily(
        "isolcpus_dp_allocated_cpus",
        "CPUs allocated to containers, from the kubelet; absent while it does not answer.",
        labels=["resource"],
    )
