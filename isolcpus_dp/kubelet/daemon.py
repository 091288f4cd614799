"""The life of the device plugin: serve, wait for a kubelet, register with it, end with it.

One process, one registration: when the kubelet goes away, the process ends, and systemd starts a
new one, which is loaded and waiting before the next kubelet starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp import config, pool
from isolcpus_dp.host import cpulist, machine, sockets
from isolcpus_dp.host.hotplug import MachineWatch
from isolcpus_dp.host.sockets import Identity, SocketWatch
from isolcpus_dp.kubelet import paths, registration
from isolcpus_dp.kubelet.resource import Resource, State, status
from isolcpus_dp.kubelet.runtime_directory import RuntimeDirectory
from isolcpus_dp.service import notify, process
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.metrics import Metrics

log = logging.getLogger(__name__)

# How long the kubelet may take from its answer to opening the ListAndWatch stream.
_STREAM_SECONDS = 10.0
# Delay of the next attempt after a rejection. Another kubelet is asked as soon as it listens.
_REFUSED_SECONDS = 5.0


@dataclass(frozen=True)
class Host:
    """The paths that the daemon uses."""

    sysfs: Path
    kubelet_dir: Path
    # For the mark of a registration and the pidfile; systemd provides it.
    runtime_dir: Path | None


def serve(host: Host, config_file: Path | None) -> None:
    """Runs the daemon until SIGTERM or SIGINT, or until the kubelet goes away.

    Raises MachineError, ConfigError or EndpointError, each with a sentence for the operator.
    """
    os.umask(0o177)  # the socket is for the kubelet, which is root
    present = machine.read(host.sysfs)
    settings = config.load(config_file, present.last)
    process.run(lambda: _Daemon(host, settings, present).live())


class _Daemon:
    """The daemon while its event loop runs."""

    def __init__(self, host: Host, settings: config.Config, present: machine.Machine) -> None:
        self._host = host
        self._settings = settings
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
            for offered in pool.make(present, settings)
        ]

    def _make_metrics(self) -> Metrics | None:
        # Imported only if metrics are configured. prometheus-client imports ssl, which the command
        # line blocks in a daemon.
        process.UNNEEDED.unblock()
        try:
            from isolcpus_dp.kubelet.metrics import Metrics
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            # The plugin is more important than its metrics.
            emit(
                log, Event.DEGRADED,
                "[Metrics] Listen= needs prometheus-client: install python3-prometheus-client;"
                " the plugin runs without metrics",
            )  # fmt: skip
            return None
        return Metrics(
            [pool.resource_name for pool in self._settings.pools],
            lambda: [resource.plugin.pool for resource in self._resources],
            self._host.kubelet_dir,
        )

    async def live(self) -> None:
        self._systemd.feed_watchdog()
        with self._machine:
            try:
                for resource in self._resources:
                    await resource.endpoint.publish()
                await self._resources[0].endpoint.prove()
                # Only now is it certain that no other daemon serves: these could be its metrics.
                async with self._metrics_served():
                    await self._serve_until_signal()
            finally:
                self._systemd.notify("STOPPING=1")
                for resource in self._resources:
                    await resource.endpoint.close()

    @contextlib.asynccontextmanager
    async def _metrics_served(self) -> AsyncIterator[None]:
        if not (self._metrics and self._settings.metrics):
            yield
            return
        from isolcpus_dp.kubelet import exporter

        async with exporter.serving(self._metrics, self._settings.metrics):
            yield

    async def _serve_until_signal(self) -> None:
        try:
            await process.until_signal(self._serve_kubelet())
        finally:
            self._runtime_directory.clear()

    async def _serve_kubelet(self) -> None:
        """Waits for the kubelet, registers with it, and returns when it has gone away."""
        for resource in self._resources:
            emit(
                log, Event.STARTED, "offering CPU %s as %s",
                cpulist.render(resource.cpus) or "(none)", resource.name,
                resource=resource.name, cpus=resource.cpus,
            )  # fmt: skip
        self._tell_status()
        self._runtime_directory.write_pidfile()
        self._systemd.notify("READY=1")
        try:
            with SocketWatch(self._socket) as watch:
                emit(log, Event.WAITING, "waiting for the kubelet at %s", self._socket)
                kubelet = await watch.listening()
                await _until_one_ends(
                    self._serve_resource(resource, watch, kubelet) for resource in self._resources
                )
        except (registration.Left, sockets.Gone) as left:
            emit(log, Event.KUBELET_LEFT, "%s; the daemon ends and is started again", left)

    async def _serve_resource(
        self, resource: Resource, watch: SocketWatch, kubelet: Identity
    ) -> None:
        """Registers a resource and waits for the end of its stream; raises registration.Left."""
        while resource.state is not State.REGISTERED:
            await resource.endpoint.publish()
            stream = resource.plugin.expect_kubelet()
            try:
                await registration.register(self._socket, resource.name, resource.endpoint.name)
            except registration.Refused as refused:
                self._refused(resource, refused)
                kubelet = await _next_kubelet(watch, kubelet)
            else:
                self._registered(resource, kubelet)
        try:
            await asyncio.wait_for(stream.opened.wait(), _STREAM_SECONDS)
        except asyncio.TimeoutError:
            raise registration.Left(
                f"the kubelet accepted the registration of {resource.name} but opened no"
                f" ListAndWatch stream within {_STREAM_SECONDS:.0f} s"
            ) from None
        await stream.ended.wait()
        raise registration.Left(f"the kubelet closed the ListAndWatch stream of {resource.name}")

    def _registered(self, resource: Resource, kubelet: Identity) -> None:
        """Records a registration. Raises registration.Left if the kubelet was replaced."""
        resource.register(kubelet)
        if self._metrics:
            self._metrics.registered(resource.name, "ok")
        if all(other.state is State.REGISTERED for other in self._resources):
            self._runtime_directory.mark_registered(kubelet)
        self._tell_status()
        emit(
            log, Event.REGISTERED,
            "registered %s with the kubelet, %d ms after its socket was created", resource.summary,
            (time.time_ns() - kubelet.bound_ns) // 1_000_000,
            resource=resource.name, cpus=resource.cpus,
        )  # fmt: skip
        # The path unit may have compared a new socket before the mark was written. And this process
        # is registered only if all resources are registered with the same socket.
        kubelets = {other.kubelet for other in self._resources if other.kubelet}
        if sockets.identify(self._socket) != kubelet or kubelets != {kubelet}:
            raise registration.Left("the kubelet was replaced during the registration")

    def _refused(self, resource: Resource, refused: registration.Refused) -> None:
        resource.refuse(str(refused))
        if self._metrics:
            self._metrics.registered(resource.name, "refused")
        emit(
            log, Event.REFUSED, "the kubelet rejected the registration of %s: %s; trying again in"
            " %.0f s, or when another kubelet starts", resource.name, refused, _REFUSED_SECONDS,
            resource=resource.name, cpus=resource.cpus,
        )  # fmt: skip
        self._tell_status()

    def _uevent(self) -> None:
        if self._metrics:
            self._metrics.uevents.inc()

    def _machine_changed(self, present: machine.Machine) -> None:
        """Reports changed devices to the kubelet."""
        offered = pool.make(present, self._settings)
        differ = [resource.offer(present, now) for resource, now in zip(self._resources, offered)]
        if any(differ):
            self._tell_status()

    def _machine_unreadable(self, error: machine.MachineError) -> None:
        emit(log, Event.DEGRADED, "could not read the CPUs: %s; continuing as before", error)

    def _tell_status(self) -> None:
        self._systemd.notify(f"STATUS={status(self._resources)}")


async def _until_one_ends(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines concurrently until one ends; raises what it raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await process.cancel(tasks)
    for task in done:
        task.result()


async def _next_kubelet(watch: SocketWatch, kubelet: Identity) -> Identity:
    """Waits for another kubelet, but at most _REFUSED_SECONDS; the identity of its socket."""
    try:
        return await asyncio.wait_for(watch.listening(kubelet), _REFUSED_SECONDS)
    except asyncio.TimeoutError:
        return await watch.listening()
