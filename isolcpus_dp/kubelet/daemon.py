"""The life of one worker of the device plugin: serve, wait for a kubelet, register, end with it.

One process, one registration: when the kubelet goes away, the worker ends, and its parent
(`standby`) forks the next one, which waits for the next kubelet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp import config, pool
from isolcpus_dp.host import directories, machine, sockets
from isolcpus_dp.host.hotplug import MachineWatch
from isolcpus_dp.host.sockets import Identity, SocketWatch
from isolcpus_dp.kubelet import paths, prometheus, registration
from isolcpus_dp.kubelet.resource import Resource, State, status
from isolcpus_dp.kubelet.runtime_directory import RuntimeDirectory
from isolcpus_dp.service import notify, process
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.metrics import Metrics
    from isolcpus_dp.kubelet.outcome import Earlier, Reporter

log = logging.getLogger(__name__)

# How long the kubelet may take from its answer to opening the ListAndWatch stream.
_STREAM_SECONDS = 10.0
# Delay of the next attempt after a rejection.
_REFUSED_SECONDS = 5.0


@dataclass(frozen=True)
class Host:
    """The paths that the daemon uses."""

    sysfs: Path
    kubelet_dir: Path
    # For the mark of a registration and the pidfile; systemd provides it.
    runtime_dir: Path | None


class Daemon:
    """One worker, from its start to the end of its registration."""

    def __init__(
        self,
        host: Host,
        settings: config.Config,
        present: machine.Machine,
        claims: pool.Claims,
        reporter: Reporter,
        earlier: Earlier,
    ) -> None:
        """To be called in the event loop."""
        self._host = host
        self._settings = settings
        self._reporter = reporter
        self._claims = claims
        self._claim(present)
        self._earlier = earlier
        self._socket = paths.registration_socket(host.kubelet_dir)
        self._runtime_directory = RuntimeDirectory(host.runtime_dir)
        self._systemd = notify.Systemd()
        self._metrics = self._make_metrics() if settings.metrics else None
        self._machine = MachineWatch(
            host.sysfs, present, self._machine_changed, self._machine_unreadable, self._uevent
        )
        self._resources = [
            Resource(
                present,
                offered,
                paths.device_plugins(host.kubelet_dir),
                partial(machine.cpuid_device_nodes, host.sysfs),
                self._metrics.allocated if self._metrics else lambda *_: None,
            )
            for offered in pool.make(present, settings, self._claims)
        ]

    def _make_metrics(self) -> Metrics | None:
        from isolcpus_dp.kubelet import root  # only the metrics need it

        metrics = prometheus.load()
        if metrics is None:
            # The plugin is more important than its metrics.
            emit(
                log, Event.DEGRADED,
                "[Metrics] Listen= needs prometheus-client: install python3-prometheus-client"
                " (python3-prometheus_client on EL and Fedora); the plugin runs without metrics",
            )  # fmt: skip
            return None
        return metrics(
            [pool.resource_name for pool in self._settings.pools],
            lambda: [resource.plugin.pool for resource in self._resources],
            lambda: root.find(self._host.kubelet_dir, self._settings.kubelet.root),
        )

    async def live(self) -> None:
        """Runs until the kubelet goes away, or SIGTERM or SIGINT; then ends the process.

        Raises EndpointError or OSError if it cannot serve.
        """
        self._systemd.feed_watchdog()
        with self._machine:
            try:
                await process.until_signal(self._serve())
            finally:
                for resource in self._resources:
                    resource.endpoint.remove()
            # At once: newer grpcio logs a traceback for each stream that it cancels.
            process.exit_now(0)

    async def _serve(self) -> None:
        if await self._waited_for_directory():
            return  # the next worker binds its sockets there
        for resource in self._resources:
            await resource.endpoint.publish()
        await self._resources[0].endpoint.prove()
        # Only now is it certain that no other daemon serves: these could be its metrics.
        async with self._metrics_served():
            for resource in self._resources:
                resource.announce()
            with contextlib.ExitStack() as stack:
                try:
                    watch = stack.enter_context(SocketWatch(self._socket, self._obstructed))
                    emit(log, Event.WAITING, "waiting for the kubelet at %s", self._socket)
                    self._systemd.notify(f"READY=1\nSTATUS={status(self._resources)}")
                    await self._serve_kubelet(watch)
                except (registration.Left, sockets.Gone) as left:
                    emit(log, Event.KUBELET_LEFT, "%s; waiting for the next kubelet", left)
                    # At once: to close the watches alone takes 20 ms, in which no worker waits.
                    for resource in self._resources:
                        resource.endpoint.remove()
                    process.exit_now(0)

    async def _waited_for_directory(self) -> bool:
        """Waits until the kubelet's directory exists; returns whether it was absent."""
        directory = paths.device_plugins(self._host.kubelet_dir)
        directories.require_visible(directory)
        if directory.is_dir():
            return False
        emit(log, Event.WAITING, "waiting for the kubelet's directory %s", directory)
        # READY=1: units that start after this one, such as the kubelet's, must not wait for it.
        self._systemd.notify(f"READY=1\nSTATUS=Waiting for the kubelet's directory {directory}")
        await directories.present(directory)
        return True

    @contextlib.asynccontextmanager
    async def _metrics_served(self) -> AsyncIterator[None]:
        if not (self._metrics and self._settings.metrics):
            yield
            return
        from isolcpus_dp.kubelet import exporter

        async with exporter.serving(self._metrics, self._settings.metrics):
            yield

    async def _serve_kubelet(self, watch: SocketWatch) -> None:
        """Waits for a kubelet and registers with it; raises registration.Left or Gone."""
        await self._pause(watch)
        failed = None
        while True:
            async with registration.Connection(self._socket) as connection:
                kubelet = failed = await watch.listener(failed)
                log.debug("socket noticed at %.6f", time.monotonic())
                self._reporter.called(kubelet)
                try:
                    await process.until_one_ends(
                        [
                            _end_when_replaced(watch, kubelet),
                            *(
                                self._serve_resource(resource, connection, kubelet)
                                for resource in self._resources
                            ),
                        ]
                    )
                except registration.Unanswered as unanswered:
                    log.debug("%s", unanswered)
                    if any(one.state is State.REGISTERED for one in self._resources):
                        raise registration.Left(str(unanswered)) from unanswered

    def _obstructed(self, reason: str) -> None:
        emit(log, Event.DEGRADED, "%s; waiting for the kubelet", reason)
        self._systemd.notify(f"STATUS=Waiting for the kubelet: {reason}")

    async def _pause(self, watch: SocketWatch) -> None:
        """Delays the registration with a kubelet that ended an earlier worker's registration."""
        deadline = time.monotonic() + self._earlier.seconds
        while (
            sockets.identify(self._socket) == self._earlier.kubelet
            and (seconds := deadline - time.monotonic()) > 0
        ):
            await watch.changed(seconds)

    async def _serve_resource(
        self, resource: Resource, connection: registration.Connection, kubelet: Identity
    ) -> None:
        """Registers a resource and waits for the end of its stream; raises registration.Left."""
        while True:
            await resource.endpoint.publish()
            stream = resource.plugin.expect_kubelet()
            log.debug("Register called at %.6f", time.monotonic())
            try:
                await connection.register(resource.name, resource.endpoint.name)
                break
            except registration.Refused as refused:
                self._refused(resource, refused)
                await asyncio.sleep(_REFUSED_SECONDS)
        try:
            await asyncio.wait_for(stream.opened.wait(), _STREAM_SECONDS)
        except asyncio.TimeoutError:
            raise registration.Left(
                f"the kubelet accepted the registration of {resource.name} but opened no"
                f" ListAndWatch stream within {_STREAM_SECONDS:.0f} s"
            ) from None
        if not stream.ended.is_set():
            # Only now: until the kubelet has the devices, nothing else may take time.
            self._registered(resource, kubelet)
        if all(other.state is State.REGISTERED for other in self._resources):
            await connection.close()  # it is not needed any more
        await stream.ended.wait()
        raise registration.Left(f"the kubelet closed the ListAndWatch stream of {resource.name}")

    def _registered(self, resource: Resource, kubelet: Identity) -> None:
        """Records a registration."""
        resource.register()
        if self._metrics:
            self._metrics.registered(resource.name, "ok")
        if all(other.state is State.REGISTERED for other in self._resources):
            self._reporter.registered()
            self._runtime_directory.mark_registered(kubelet)
        self._tell_status()
        emit(
            log, Event.REGISTERED,
            "registered %s with the kubelet, %d ms after its socket was created", resource.summary,
            max(0, time.time_ns() - kubelet.bound_ns) // 1_000_000,
            resource=resource.name, cpus=resource.cpus,
        )  # fmt: skip

    def _refused(self, resource: Resource, refused: registration.Refused) -> None:
        is_news = resource.refuse(str(refused))
        if self._metrics:
            self._metrics.registered(resource.name, "refused")
        if is_news:
            emit(
                log, Event.REFUSED, "the kubelet rejected the registration of %s: %s; trying again"
                " every %.0f s", resource.name, refused, _REFUSED_SECONDS,
                resource=resource.name, cpus=resource.cpus,
            )  # fmt: skip
        self._tell_status()

    def _uevent(self) -> None:
        if self._metrics:
            self._metrics.uevents.inc()

    def _machine_changed(self, present: machine.Machine) -> None:
        """Reports changed devices to the kubelet."""
        self._reporter.late(present.late)
        self._claim(present)
        offered = pool.make(present, self._settings, self._claims)
        differ = [resource.offer(present, now) for resource, now in zip(self._resources, offered)]
        if any(differ):
            self._tell_status()

    def _claim(self, present: machine.Machine) -> None:
        """Lets the pools claim the CPUs that were not known before."""
        before = self._claims
        self._claims = pool.claim(present, self._settings, before.near, before)
        self._reporter.claimed(self._claims.more_than(before))

    def _machine_unreadable(self, error: machine.MachineError) -> None:
        emit(log, Event.DEGRADED, "could not read the CPUs: %s; continuing as before", error)

    def _tell_status(self) -> None:
        self._systemd.notify(f"STATUS={status(self._resources)}")


async def _end_when_replaced(watch: SocketWatch, kubelet: Identity) -> None:
    await watch.replaced(kubelet)
    raise registration.Left("the kubelet's socket was recreated")
