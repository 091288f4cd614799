"""The life of the daemon: systemd, signals, CPU hotplug, and the order of start and stop.

One process, one registration: it serves, waits for a kubelet, registers with it, and ends when
that kubelet leaves, so that systemd starts a fresh one, loaded and waiting for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp import config, pool
from isolcpus_dp.host import cpulist, hotplug, machine, sockets
from isolcpus_dp.kubelet import paths, registration
from isolcpus_dp.kubelet.plugin import DevicePlugin, Endpoint
from isolcpus_dp.service import notify
from isolcpus_dp.service.events import Event, fields

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.metrics import Metrics

log = logging.getLogger(__name__)

# How long the kubelet may take from its answer to opening the ListAndWatch stream.
_STREAM_SECONDS = 10.0
# After a refusal the same kubelet is asked again; a new one is asked as soon as it comes.
_REFUSED_SECONDS = 5.0
# CPUs go offline and online in batches: their uevents are answered together.
_HOTPLUG_SECONDS = 0.005


@dataclass(frozen=True)
class Host:
    """Where the daemon finds its surroundings."""

    sysfs: Path
    kubelet_dir: Path
    # For the mark of a registration and the pidfile; systemd provides it.
    runtime_dir: Path | None


def serve(host: Host, config_file: Path | None) -> None:
    """Runs the daemon until SIGTERM, SIGINT, or until the kubelet leaves.

    Raises MachineError, ConfigError or EndpointError, each with a sentence for
    the operator.
    """
    os.umask(0o177)  # the socket is for the kubelet, which is root
    present = machine.read(host.sysfs)
    settings = config.load(config_file, present.last)
    asyncio.run(_live(host, settings, present))


async def _live(host: Host, settings: config.Config, present: machine.Machine) -> None:
    # Made within the loop: before Python 3.10 an asyncio.Event belongs to the loop it is made in.
    await _Daemon(host, settings, present).live()


class _Resource:
    """One pool on its way to the kubelet."""

    def __init__(
        self, host: Host, present: machine.Machine, offered: pool.Pool, metrics: Metrics | None
    ) -> None:
        self.name = offered.resource_name
        self.plugin = DevicePlugin(
            present,
            offered,
            partial(machine.cpuid_device_nodes, host.sysfs),
            *([metrics.allocated] if metrics else []),
        )
        self.endpoint = Endpoint(
            paths.device_plugins(host.kubelet_dir) / offered.config.endpoint, self.plugin
        )
        self.registered: int | None = None  # creation() of the kubelet's socket
        self.refused = ""  # why, in the kubelet's words

    @property
    def summary(self) -> str:
        offered = self.plugin.pool
        return f"{self.name}: {len(offered.devices)} devices, {len(offered.unhealthy)} unhealthy"

    def fields(self, event: Event) -> dict[str, object]:
        return fields(event, resource=self.name, cpus=self.plugin.pool.cpus)


class _Daemon:
    """The daemon while its event loop runs."""

    def __init__(self, host: Host, settings: config.Config, present: machine.Machine) -> None:
        self._host = host
        self._settings = settings
        self._machine = present
        self._socket = paths.registration_socket(host.kubelet_dir)
        self._systemd = notify.Systemd()
        self._hotplug_timer: asyncio.TimerHandle | None = None
        self._metrics = self._make_metrics() if settings.metrics else None
        self._resources = [
            _Resource(host, present, offered, self._metrics)
            for offered in pool.make(present, settings)
        ]
        for resource in self._resources:
            _warn(resource.plugin.pool, ())

    def _make_metrics(self) -> Metrics | None:
        # Who has not asked for metrics does not pay. prometheus-client takes ssl, which the command
        # line keeps out of a daemon.
        if sys.modules.get("ssl", ...) is None:
            del sys.modules["ssl"]
        try:
            from isolcpus_dp.kubelet.metrics import Metrics
        except ModuleNotFoundError as error:
            if error.name != "prometheus_client":
                raise
            # A node needs its plugin more than the plugin's numbers.
            log.error(
                "[Metrics] Listen= needs prometheus-client: install python3-prometheus-client;"
                " the plugin serves on without metrics",
                extra=fields(Event.FAILED),
            )
            return None
        return Metrics(
            [one.resource_name for one in self._settings.pools],
            lambda: [resource.plugin.pool for resource in self._resources],
            self._host.kubelet_dir,
        )

    async def live(self) -> None:
        self._systemd.feed_watchdog()
        with hotplug.watch(self._host.sysfs, self._hotplug_soon):
            self._hotplug()  # what changed before the watch stood
            try:
                for resource in self._resources:
                    await resource.endpoint.publish()
                await self._resources[0].endpoint.prove()
                # Not before it is known that no other daemon serves: these might be its metrics.
                async with self._metrics_served():
                    await notify.until_signal(self._serve_kubelet())
            finally:
                self._systemd.notify("STOPPING=1")
                self._remove_traces()
                for resource in self._resources:
                    await resource.endpoint.close()

    @contextlib.asynccontextmanager
    async def _metrics_served(self) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if self._metrics and self._settings.metrics:
                await stack.enter_async_context(self._metrics.served(self._settings.metrics))
            yield

    async def _serve_kubelet(self) -> None:
        """From waiting for the kubelet to its end."""
        for resource in self._resources:
            log.info(
                "offering CPU %s as %s",
                cpulist.render(resource.plugin.pool.cpus) or "(none)", resource.name,
                extra=resource.fields(Event.STARTED),
            )  # fmt: skip
        self._tell_status()
        self._write_pidfile()
        self._systemd.notify("READY=1")
        try:
            with sockets.SocketWatch(self._socket) as socket:
                log.info("waiting for the kubelet at %s", self._socket, extra=fields(Event.WAITING))
                created = await socket.live()
                await _until_one_ends(
                    self._serve_resource(resource, socket, created) for resource in self._resources
                )
        except (registration.Left, sockets.Gone) as left:
            log.info("%s; ending, to start afresh", left, extra=fields(Event.KUBELET_LEFT))

    async def _serve_resource(
        self, resource: _Resource, socket: sockets.SocketWatch, created: int
    ) -> None:
        """From the kubelet's socket to the end of the stream. Raises registration.Left."""
        while resource.registered is None:
            await resource.endpoint.publish()
            stream = resource.plugin.expect_kubelet()
            try:
                await registration.register(self._socket, resource.name, resource.endpoint.name)
            except registration.Refused as refused:
                self._refused(resource, refused)
                created = await _next_socket(socket, created)
            else:
                self._registered(resource, created)
        try:
            await asyncio.wait_for(stream.opened.wait(), _STREAM_SECONDS)
        except asyncio.TimeoutError:
            raise registration.Left(
                f"the kubelet took the registration of {resource.name} but opened no"
                f" ListAndWatch stream in {_STREAM_SECONDS:.0f} s"
            ) from None
        await stream.ended.wait()
        raise registration.Left(
            f"the kubelet left: its ListAndWatch stream ended ({resource.name})"
        )

    def _registered(self, resource: _Resource, created: int) -> None:
        """Notes a registration. Raises registration.Left if the kubelet was replaced meanwhile."""
        resource.registered = created
        if self._metrics:
            self._metrics.registered(resource.name, "ok")
        if all(other.registered for other in self._resources):
            self._mark(created)
        self._tell_status()
        log.info(
            "registered %s with the kubelet, %d ms after its socket was made",
            resource.summary, (time.time_ns() - created) // 1_000_000,
            extra=resource.fields(Event.REGISTERED),
        )  # fmt: skip
        # A socket that came while we registered was not yet the path unit's to compare.
        # One that another resource is not registered with is no registration of this process.
        others = {other.registered for other in self._resources} - {None}
        if sockets.creation(self._socket) != created or others != {created}:
            raise registration.Left("the kubelet was replaced while it registered us")

    def _refused(self, resource: _Resource, refused: registration.Refused) -> None:
        # In one line, whatever the kubelet said: each line tells systemd something else.
        resource.refused = " ".join(str(refused).split())
        if self._metrics:
            self._metrics.registered(resource.name, "refused")
        log.error(
            "the kubelet refused to register %s: %s; asking again in %.0f s, or as soon as"
            " another kubelet comes", resource.name, refused, _REFUSED_SECONDS,
            extra=resource.fields(Event.REFUSED),
        )  # fmt: skip
        self._tell_status()

    def _hotplug_soon(self) -> None:
        if self._metrics:
            self._metrics.uevents.inc()
        if self._hotplug_timer is None:
            loop = asyncio.get_running_loop()
            self._hotplug_timer = loop.call_later(_HOTPLUG_SECONDS, self._hotplug)

    def _hotplug(self) -> None:
        """Reads the machine anew and lets the kubelet know of the devices that differ."""
        self._hotplug_timer = None
        try:
            self._machine = machine.read(self._host.sysfs, self._machine)
        except machine.MachineError as error:
            log.error(
                "%s; the devices stay as they were", error, extra=fields(Event.FAILED)
            )  # fmt: skip
            return
        for resource, now in zip(self._resources, pool.make(self._machine, self._settings)):
            before = resource.plugin.pool
            resource.plugin.publish(self._machine, now)
            _warn(now, before.warnings)
            if now.devices != before.devices:
                _log_changes(before, now)
                self._tell_status()

    def _tell_status(self) -> None:
        waiting = [one for one in self._resources if not (one.registered or one.refused)]
        refused = [one for one in self._resources if one.refused and not one.registered]
        registered = [one for one in self._resources if one.registered]
        parts = [
            ("Waiting for the kubelet to register", [one.summary for one in waiting]),
            ("Refused by the kubelet:", [one.refused for one in refused]),
            ("Registered", [one.summary for one in registered]),
        ]
        state = ". ".join(f"{what} {'; '.join(which)}" for what, which in parts if which)
        self._systemd.notify(f"STATUS={state}")

    def _mark(self, created: int) -> None:
        if self._host.runtime_dir:
            try:
                registration.mark_registered(self._host.runtime_dir / "registered", created)
            except OSError as error:
                log.warning(
                    "%s/registered cannot be written: %s; a kubelet that makes a new socket while"
                    " its old connection lives may go unnoticed",
                    self._host.runtime_dir, error.strerror, extra=fields(Event.FAILED),
                )  # fmt: skip

    def _write_pidfile(self) -> None:
        # For StarlingX's process monitor, which kills the process that it names before a restart:
        # it is there no sooner than the daemon serves, so that none is killed that is just loading.
        if self._host.runtime_dir:
            try:
                (self._host.runtime_dir / "isolcpus-dp.pid").write_text(f"{os.getpid()}\n")
            except OSError as error:
                log.warning(
                    "%s/isolcpus-dp.pid cannot be written: %s; StarlingX's process monitor, if it"
                    " watches, takes the daemon for dead and restarts it",
                    self._host.runtime_dir, error.strerror, extra=fields(Event.FAILED),
                )  # fmt: skip

    def _remove_traces(self) -> None:
        if self._host.runtime_dir:
            for name in ("registered", "isolcpus-dp.pid"):
                (self._host.runtime_dir / name).unlink(missing_ok=True)


def _warn(offered: pool.Pool, known: Sequence[str]) -> None:
    """Warns of CPUs that are not offered, unless that is known."""
    for warning in offered.warnings:
        if warning not in known:
            log.warning(
                warning, extra=fields(Event.POOL_WARNING, resource=offered.resource_name)
            )  # fmt: skip


def _log_changes(before: pool.Pool, now: pool.Pool) -> None:
    """Tells which devices of a resource came, went, or changed their health."""
    for id in sorted({*before.devices, *now.devices}, key=int):
        device, change = now.devices.get(id), ""
        if device == before.devices.get(id):
            continue
        if device is None:
            device, change = before.devices[id], "is gone"
        elif device.healthy:
            change = "is online"
        else:
            change = "is offline" if len(device.core) == 1 else "is not online as a whole"
        log.warning(
            "%s %s %s; the kubelet is told",
            "CPU" if len(device.core) == 1 else "core", cpulist.render(device.core), change,
            extra=fields(Event.DEVICES_CHANGED, resource=now.resource_name, cpus=device.core),
        )  # fmt: skip


async def _until_one_ends(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines side by side until the first of them ends, and raises what it raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


async def _next_socket(socket: sockets.SocketWatch, created: int) -> int:
    """Waits for another kubelet, or a while for this one; creation() of its socket."""
    try:
        return await asyncio.wait_for(socket.live(created), _REFUSED_SECONDS)
    except asyncio.TimeoutError:
        return await socket.live()
