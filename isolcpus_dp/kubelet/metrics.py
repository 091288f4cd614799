"""Metrics for Prometheus, over HTTP on a TCP address or a unix socket.

Off unless configured, and not loaded then. prometheus-client keeps and renders the numbers; its own
server needs threads that wake up, so the few lines of HTTP are here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from isolcpus_dp.config import Listen
from isolcpus_dp.kubelet import podresources
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.pool import Pool
from isolcpus_dp.service.events import Event, fields

log = logging.getLogger(__name__)

# A scraper's request is a line and a few headers.
_MOST_REQUEST = 8192
_REQUEST_SECONDS = 5.0
# Every further one is closed at once: its descriptor is one that the plugin may need.
_MOST_CONNECTIONS = 16

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
        self._connections = 0
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
            "How long an Allocate call took to answer.",
            ["resource"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.uevents = Counter(
            "isolcpus_dp_uevents",
            "Times that the kernel told of a CPU.",
            registry=self._registry,
        )
        Gauge(
            "isolcpus_dp_start_time_seconds",
            "When this daemon started; changes() of it counts restarts.",
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

    @contextlib.asynccontextmanager
    async def served(self, listen: Listen) -> AsyncIterator[None]:
        """Serves them within the block.

        Where that cannot be, the log says why, and no more happens: a node needs its plugin more
        than the plugin's numbers.
        """
        server: asyncio.AbstractServer | None = None
        try:
            server = await self._listening(listen)
        except OSError as error:
            log.error(
                "[Metrics] Listen=: cannot listen there: %s; the plugin serves on without metrics",
                _complaint(error, listen),
                extra=fields(Event.FAILED),
            )
        try:
            yield
        finally:
            if server:
                server.close()
                if isinstance(listen, Path):
                    listen.unlink(missing_ok=True)

    async def _listening(self, listen: Listen) -> asyncio.AbstractServer:
        """Raises OSError."""
        if isinstance(listen, Path):
            return await asyncio.start_unix_server(self._serve, str(listen), limit=_MOST_REQUEST)
        # Bound here: asyncio passes over an address that it gets no socket for, and may be left
        # with none.
        [(family, *_, address)] = socket.getaddrinfo(
            *listen, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
        bound = socket.create_server(address, family=family)
        return await asyncio.start_server(self._serve, sock=bound, limit=_MOST_REQUEST)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, and closes the connection."""
        self._connections += 1
        with contextlib.suppress(
            OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError,
            asyncio.CancelledError,  # the daemon ends, and this with it
        ):  # fmt: skip
            if self._connections <= _MOST_CONNECTIONS:
                await self._answer(reader, writer)
        self._connections -= 1
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_SECONDS)
        self._cpus.allocations = await self._allocations()
        writer.write(self._response(request.split(b"\r\n", 1)[0].split()))
        await writer.drain()

    async def _allocations(self) -> Sequence[Allocation] | None:
        try:
            return await podresources.ask(self._kubelet_dir)
        except podresources.Unseen:
            return None

    def _response(self, request_line: list[bytes]) -> bytes:
        method, target, *_ = [*request_line, b"", b""]
        if method not in (b"GET", b"HEAD") or target.split(b"?")[0] not in (b"/metrics", b"/"):
            return b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        body = generate_latest(self._registry)
        head = f"HTTP/1.0 200 OK\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        return head.encode() + (body if method == b"GET" else b"")


class _Cpus:
    """The CPUs of each pool, counted when they are asked for."""

    allocations: Sequence[Allocation] | None = None  # unknown where no kubelet answers

    def __init__(self, pools: Callable[[], Sequence[Pool]]) -> None:
        self._pools = pools

    def collect(self) -> Iterable[Metric]:
        cpus = GaugeMetricFamily(
            "isolcpus_dp_cpus",
            "CPUs that are offered, by the health of their devices.",
            labels=["resource", "state"],
        )
        for pool in self._pools():
            healthy = pool.of(id for id, device in pool.devices.items() if device.healthy)
            cpus.add_metric([pool.resource_name, "healthy"], len(healthy))
            cpus.add_metric([pool.resource_name, "unhealthy"], len(pool.cpus - healthy))
        yield cpus
        if self.allocations is not None:
            yield self._allocated(self.allocations)

    def _allocated(self, allocations: Sequence[Allocation]) -> Metric:
        # Not a third state: these are healthy or not, too, and the states add up to the pool.
        cpus = GaugeMetricFamily(
            "isolcpus_dp_allocated_cpus",
            "CPUs that containers hold, as the kubelet tells; missing while it does not answer.",
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


def _complaint(error: OSError, listen: Listen) -> str:
    """What is wrong, and what to do about it."""
    # Not every one has a number, and a resolver's numbers are its own.
    reason = error.strerror or str(error)
    if isinstance(listen, Path):
        return f"{reason}: the unit's sandbox lets it make a socket in /run/isolcpus-dp"
    if error.errno == errno.EAFNOSUPPORT:
        return (
            f"{reason}: the unit's sandbox has no network unless a drop-in (systemctl edit"
            " isolcpus-dp) says, below [Service], PrivateNetwork=no and"
            " RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 and"
            " IPAddressAllow=localhost; see isolcpus-dp.conf(5)"
        )
    return f"{reason}: give an address of this host that is free"


def _version() -> str:
    """The installed package's; unknown if the code is run from somewhere else."""
    try:
        return metadata.version("isolcpus-dp")
    except metadata.PackageNotFoundError:
        return "unknown"
