"""The life of the daemon: systemd, signals, CPU hotplug, and the order of start and stop.

One process, one registration: it serves, waits for a kubelet, registers with it, and ends when
that kubelet leaves, so that systemd starts a fresh one, loaded and waiting for the next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import sdnotify

from isolcpus_dp import config, cpulist, hotplug, kubelet, machine, pool
from isolcpus_dp.deviceplugin import DevicePlugin, Endpoint, Stream
from isolcpus_dp.journal import Event, fields

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
    runtime_dir: Path | None  # for the mark of a registration; systemd provides it


def serve(host: Host, config_file: Path | None) -> None:
    """Runs the daemon until SIGTERM, SIGINT, or until the kubelet leaves.

    Raises MachineError, ConfigError or EndpointError, each with a sentence for
    the operator.
    """
    os.umask(0o177)  # the socket is for the kubelet, which is root
    present = machine.read(host.sysfs)
    settings = config.load(config_file, present.last).plugin
    for warning in pool.warnings(present, settings):
        log.warning(
            warning, extra=fields(Event.POOL_WARNING, resource=settings.resource_name)
        )  # fmt: skip
    asyncio.run(_live(host, settings, present))


async def _live(host: Host, settings: config.PoolConfig, present: machine.Machine) -> None:
    # Made within the loop: before Python 3.10 an asyncio.Event belongs to the loop it is made in.
    await _Daemon(host, settings, present).live()


class _Daemon:
    """The daemon while its event loop runs."""

    def __init__(self, host: Host, settings: config.PoolConfig, present: machine.Machine) -> None:
        self._host = host
        self._settings = settings
        self._systemd = sdnotify.SystemdNotifier()
        self._registered = False
        self._hotplug_timer: asyncio.TimerHandle | None = None
        self._plugin = DevicePlugin(
            present,
            pool.make(present, settings),
            partial(machine.cpuid_device_nodes, host.sysfs),
        )

    async def live(self) -> None:
        endpoint = Endpoint(
            kubelet.device_plugins(self._host.kubelet_dir) / self._plugin.pool.endpoint,
            self._plugin,
        )
        self._feed_watchdog()
        with hotplug.watch(self._host.sysfs, self._hotplug_soon):
            self._hotplug()  # what changed before the watch stood
            try:
                await endpoint.publish()
                await endpoint.prove()
                await _until_signal(self._serve_kubelet(endpoint))
            finally:
                self._systemd.notify("STOPPING=1")
                self._unmark()
                await endpoint.close()

    async def _serve_kubelet(self, endpoint: Endpoint) -> None:
        """From waiting for the kubelet to its end."""
        offered = self._plugin.pool
        log.info(
            "offering CPU %s as %s", _cpus(offered) or "(none)", offered.resource_name,
            extra=self._fields(Event.STARTED),
        )  # fmt: skip
        self._tell_status()
        self._systemd.notify("READY=1")
        try:
            stream, created = await self._register(endpoint)
            await self._until_kubelet_leaves(stream, created)
        except kubelet.Left as left:
            log.info("%s; ending, to start afresh", left, extra=self._fields(Event.KUBELET_LEFT))

    async def _register(self, endpoint: Endpoint) -> tuple[Stream, int]:
        """Registers with the first kubelet that takes us. Raises kubelet.Left."""
        path = kubelet.registration_socket(self._host.kubelet_dir)
        log.info("waiting for the kubelet at %s", path, extra=self._fields(Event.WAITING))
        created = await kubelet.live_socket(path)
        while True:
            await endpoint.publish()
            stream = self._plugin.expect_kubelet()
            offered = self._plugin.pool
            try:
                await kubelet.register(path, offered.resource_name, offered.endpoint)
            except kubelet.Refused as refused:
                self._refused(refused)
                created = await _next_socket(path, created)
            else:
                return stream, created

    async def _until_kubelet_leaves(self, stream: Stream, created: int) -> None:
        """Raises kubelet.Left, when it does."""
        self._mark(created)
        self._registered = True
        self._tell_status()
        offered = self._plugin.pool
        log.info(
            "registered %s with the kubelet, %d ms after its socket was made",
            self._summary(), (time.time_ns() - created) // 1_000_000,
            extra=self._fields(Event.REGISTERED),
        )  # fmt: skip
        # A socket that came while we registered was not yet the path unit's to compare.
        if kubelet.creation(kubelet.registration_socket(self._host.kubelet_dir)) != created:
            raise kubelet.Left("the kubelet was replaced while it registered us")
        try:
            await asyncio.wait_for(stream.opened.wait(), _STREAM_SECONDS)
        except asyncio.TimeoutError:
            raise kubelet.Left(
                f"the kubelet took the registration of {offered.resource_name} but opened no"
                f" ListAndWatch stream in {_STREAM_SECONDS:.0f} s"
            ) from None
        await stream.ended.wait()
        raise kubelet.Left("the kubelet left: its ListAndWatch stream ended")

    def _refused(self, refused: kubelet.Refused) -> None:
        name = self._plugin.pool.resource_name
        log.error(
            "the kubelet refused to register %s: %s; asking again in %.0f s, or as soon as"
            " another kubelet comes", name, refused, _REFUSED_SECONDS,
            extra=self._fields(Event.REFUSED),
        )  # fmt: skip
        self._systemd.notify(f"STATUS=Refused by the kubelet: {refused}")

    def _hotplug_soon(self) -> None:
        if self._hotplug_timer is None:
            loop = asyncio.get_running_loop()
            self._hotplug_timer = loop.call_later(_HOTPLUG_SECONDS, self._hotplug)

    def _hotplug(self) -> None:
        """Reads the machine anew and lets the kubelet know if its devices differ."""
        self._hotplug_timer = None
        before = self._plugin.pool.devices
        present = machine.read(self._host.sysfs)
        now = pool.make(present, self._settings)
        self._plugin.publish(present, now)
        if now.devices == before:
            return
        for id in sorted({*before, *now.devices}, key=int):
            self._log_change(id, before.get(id), now.devices.get(id))
        self._tell_status()

    def _log_change(self, id: str, before: pool.Device | None, now: pool.Device | None) -> None:
        if before == now:
            return
        what = "is gone" if now is None else "is online" if now.healthy else "is offline"
        log.warning(
            "CPU %s %s; the kubelet is told", id, what,
            extra=fields(
                Event.DEVICES_CHANGED, resource=self._settings.resource_name, cpus=[int(id)]
            ),
        )  # fmt: skip

    def _tell_status(self) -> None:
        state = (
            f"Registered {self._summary()}"
            if self._registered
            else f"Waiting for the kubelet to register {self._summary()}"
        )
        self._systemd.notify(f"STATUS={state}")

    def _summary(self) -> str:
        offered = self._plugin.pool
        return (
            f"{offered.resource_name}: {len(offered.devices)} devices,"
            f" {len(offered.unhealthy)} unhealthy"
        )

    def _fields(self, event: Event) -> dict[str, object]:
        offered = self._plugin.pool
        cpus = [cpu for device in offered.devices.values() for cpu in device.cpus]
        return fields(event, resource=offered.resource_name, cpus=cpus)

    def _mark(self, created: int) -> None:
        if self._host.runtime_dir:
            kubelet.mark_registered(self._host.runtime_dir / "registered", created)

    def _unmark(self) -> None:
        if self._host.runtime_dir:
            (self._host.runtime_dir / "registered").unlink(missing_ok=True)

    def _feed_watchdog(self) -> None:
        """Proves to systemd that the event loop turns, at half the interval it asks for."""
        microseconds = os.environ.get("WATCHDOG_USEC")
        if microseconds:
            self._systemd.notify("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            loop.call_later(int(microseconds) / 2e6, self._feed_watchdog)


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends or until systemd or a terminal asks the process to stop."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    task, stop = asyncio.create_task(work), asyncio.create_task(asked.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        log.info("asked to stop", extra=fields(Event.STOPPED))
    # Before Python 3.12, wait_for() may swallow a cancellation (bpo-37658).
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    if not task.cancelled():
        task.result()


async def _next_socket(path: Path, created: int) -> int:
    """Waits for another kubelet, or a while for this one; creation() of its socket."""
    try:
        return await asyncio.wait_for(kubelet.live_socket(path, created), _REFUSED_SECONDS)
    except asyncio.TimeoutError:
        return await kubelet.live_socket(path)


def _cpus(offered: pool.Pool) -> str:
    return cpulist.render(cpu for device in offered.devices.values() for cpu in device.cpus)
