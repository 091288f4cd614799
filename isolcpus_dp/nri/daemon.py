"""The life of the pinning daemon: it waits for a container runtime, answers it, and waits again.

It lives as long as the host does, whatever runtimes come and go. Every connection begins with
Synchronize, so nothing is lost in between; and when the host's CPUs change, a fresh connection
puts all containers right.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from isolcpus_dp import config
from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import cpulist, hotplug, inotify, machine, sockets
from isolcpus_dp.nri import cgroup, pinning, plugin, ttrpc
from isolcpus_dp.service import notify
from isolcpus_dp.service.events import Event, fields

log = logging.getLogger(__name__)

NAME = "isolcpus-dp"
# Where among the host's plugins it is asked. Two that set a container's cpuset are a conflict in
# any order.
INDEX = "10"
VERSION = "0.6.0"

# The runtime gives a plugin 5 s to register.
_REGISTER_SECONDS = 5.0
# It changes containers one after another, and has others to start meanwhile.
_UPDATE_SECONDS = 30.0
# CPUs go offline and online in batches.
_HOTPLUG_SECONDS = 0.005


class _End(enum.Enum):
    """How it went with a runtime."""

    NOBODY = enum.auto()  # nobody listens
    REFUSED = enum.auto()  # it would not have us
    SERVED = enum.auto()


# When to try again though the socket has not changed.
_AGAIN_SECONDS = {_End.REFUSED: 5.0, _End.SERVED: 0.1}


@dataclass(frozen=True)
class Host:
    """Where the daemon finds its surroundings."""

    sysfs: Path
    nri_socket: Path


class HostError(Exception):
    """There is nowhere to wait for a runtime; one sentence."""


def serve(host: Host, config_file: Path | None) -> None:
    """Runs the daemon until SIGTERM or SIGINT.

    Raises MachineError, ConfigError or HostError, each with a sentence for the operator.
    """
    present = machine.read(host.sysfs)
    settings = config.load(config_file, present.last)
    asyncio.run(_live(host, settings, present))


async def _live(host: Host, settings: config.Config, present: machine.Machine) -> None:
    # Made within the loop: before Python 3.10 an asyncio.Event belongs to the loop it is made in.
    await _Daemon(host, settings, present).live()


class _Daemon:
    """The daemon while its event loop runs."""

    def __init__(self, host: Host, settings: config.Config, present: machine.Machine) -> None:
        self._host = host
        self._cgroups = host.sysfs / "fs" / "cgroup"
        self._settings = settings
        self._machine = present
        self._rules = self._rules_for(present)
        self._systemd = notify.Systemd()
        self._hotplug_timer: asyncio.TimerHandle | None = None
        self._connection: ttrpc.Connection | None = None
        self._updates: set[asyncio.Task[None]] = set()  # under way; a loop holds tasks loosely
        self._unsure: set[str] = set()  # containers, see Plugin
        self._synchronized = False

    def _rules_for(self, present: machine.Machine) -> pinning.Rules:
        nameable = cgroup.nameable(self._cgroups, present)
        return pinning.rules(
            present, self._settings, nameable, machine.nodes_with_memory(self._host.sysfs)
        )

    async def live(self) -> None:
        self._systemd.feed_watchdog()
        with hotplug.watch(self._host.sysfs, self._hotplug_soon):
            self._hotplug()  # what changed before the watch stood
            try:
                await notify.until_signal(self._serve_runtimes())
            finally:
                self._systemd.notify("STOPPING=1")

    async def _serve_runtimes(self) -> None:
        log.info(
            "isolated CPU %s: %s", cpulist.render(self._rules.isolated) or "(none)",
            "kept free of all but their owners" if self._settings.pinning.keep_others_off
            else "only their owners are pinned",
            extra=fields(Event.STARTED, cpus=self._rules.isolated),
        )  # fmt: skip
        folder = self._host.nri_socket.parent
        self._tell_waiting()
        self._systemd.notify("READY=1")
        while True:
            try:
                await sockets.folder(folder)
                with sockets.SocketWatch(self._host.nri_socket) as watch:
                    await self._serve_from(watch)
            except sockets.Gone as gone:
                log.info("%s", gone, extra=fields(Event.RUNTIME_LEFT))
            except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
                raise HostError(
                    f"{folder.parent} cannot be watched for {folder.name}: {error.strerror}:"
                    " --nri-socket must be in a folder whose parent exists"
                ) from error
            except OSError as error:
                raise HostError(
                    f"nothing can be watched on this host: {error.strerror}: see the limits of"
                    " inotify(7) and of open files"
                ) from error

    async def _serve_from(self, watch: sockets.SocketWatch) -> None:
        """Serves whoever listens on the socket, one after another. Raises sockets.Gone."""
        while True:
            created, end = await self._serve_next(watch)
            self._tell_waiting()
            await watch.replaced(created, _AGAIN_SECONDS[end])

    async def _serve_next(self, watch: sockets.SocketWatch) -> tuple[int | None, _End]:
        """Waits until somebody listens, and serves; the creation() of the socket, and how it went.

        Raises sockets.Gone.
        """
        async for _ in watch.attempts():
            created = sockets.creation(self._host.nri_socket)
            end = await self._serve_runtime(created)
            if end is not _End.NOBODY:
                return created, end
        raise AssertionError("attempts() have no end")

    async def _serve_runtime(self, created: int | None) -> _End:
        """From connecting, to the socket of that creation(), to the end of the connection."""
        self._synchronized, rules = False, self._rules
        with inotify.Watch() as written:
            quotas = cgroup.Quotas(self._cgroups, written)
            answers = plugin.Plugin(
                rules, quotas, self._on_synchronized, self._update_soon, self._unsure
            )
            try:
                _, connection = await asyncio.get_running_loop().create_unix_connection(
                    lambda: ttrpc.Connection(plugin.TO_PLUGIN, plugin.TO_RUNTIME, answers.answer),
                    str(self._host.nri_socket),
                )
            except OSError:
                return _End.NOBODY
            if created is None or sockets.creation(self._host.nri_socket) != created:
                # Replaced in this moment: who has answered is not known, and is soon tried again.
                connection.close()
                return _End.NOBODY
            if rules is not self._rules:
                # The host's CPUs have changed in this moment.
                connection.close()
                return _End.SERVED
            self._connection = connection
            try:
                await self._register(connection)
                await connection.lost.wait()
            finally:
                self._connection = None
                connection.close()
        # It was not the runtime that would not go on if the host's CPUs have changed meanwhile.
        if not self._synchronized and rules is self._rules:
            return _End.REFUSED
        log.info("the connection to the runtime ended", extra=fields(Event.RUNTIME_LEFT))
        return _End.SERVED

    async def _register(self, connection: ttrpc.Connection) -> None:
        """Makes us known to the runtime; if it will not have us the connection is closed."""
        request = api.RegisterPluginRequest(
            plugin_name=NAME, plugin_idx=INDEX, NRI_version=VERSION
        ).SerializeToString()
        try:
            await connection.call(
                plugin.RUNTIME_SERVICE, "RegisterPlugin", request, _REGISTER_SECONDS
            )
        except (ttrpc.CallError, ttrpc.Lost, asyncio.TimeoutError) as error:
            log.warning(
                "the runtime did not take us: %s; trying again in %.0f s, or as soon as another"
                " one comes", str(error) or "no answer", _AGAIN_SECONDS[_End.REFUSED],
                extra=fields(Event.REFUSED),
            )  # fmt: skip
            connection.close()

    def _update_soon(self, update: api.ContainerUpdate) -> None:
        """Changes a container when the call that is being answered is over."""
        if self._connection:
            task = asyncio.create_task(self._update(self._connection, update))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

    async def _update(self, connection: ttrpc.Connection, update: api.ContainerUpdate) -> None:
        request = api.UpdateContainersRequest(update=[update]).SerializeToString()
        try:
            answer = await connection.call(
                plugin.RUNTIME_SERVICE, "UpdateContainers", request, _UPDATE_SECONDS
            )
            if api.UpdateContainersResponse.FromString(answer).failed:
                self._tell_not_put_right(update.container_id, "the runtime's own log says why")
            else:
                self._unsure.discard(update.container_id)
        except ttrpc.Lost:
            pass  # the next connection tells of all containers again
        except (ttrpc.CallError, asyncio.TimeoutError, DecodeError) as error:
            # A call's error is how containerd tells of failed ones. What has ended meanwhile needs
            # nothing, the others have to wait for the next connection: one made for them alone
            # might end as this call did, again and again.
            self._tell_not_put_right(update.container_id, str(error) or "no answer")

    def _tell_not_put_right(self, container: str, reason: str) -> None:
        log.warning(
            "container %s was not put right: %s", container, reason, extra=fields(Event.NOT_PINNED)
        )

    def _on_synchronized(self, runtime: str) -> None:
        self._synchronized = True
        isolated = cpulist.render(self._rules.isolated) or "(none)"
        self._systemd.notify(f"STATUS=Connected to {runtime}, isolated CPU {isolated}")

    def _tell_waiting(self) -> None:
        path = self._host.nri_socket
        log.info("waiting for a container runtime at %s", path, extra=fields(Event.WAITING))
        self._systemd.notify(f"STATUS=Waiting for a container runtime with NRI at {path}")

    def _hotplug_soon(self) -> None:
        if self._hotplug_timer is None:
            loop = asyncio.get_running_loop()
            self._hotplug_timer = loop.call_later(_HOTPLUG_SECONDS, self._hotplug)

    def _hotplug(self) -> None:
        """Reads the machine anew; if its CPUs differ, a fresh connection puts containers right."""
        self._hotplug_timer = None
        try:
            self._machine = machine.read(self._host.sysfs, self._machine)
        except machine.MachineError as error:
            log.error("%s; the CPUs stay as they were", error, extra=fields(Event.FAILED))
            return
        now = self._rules_for(self._machine)
        if now == self._rules:
            return
        self._rules = now
        log.info(
            "online is CPU %s now; all containers are looked at again",
            cpulist.render(now.online), extra=fields(Event.DEVICES_CHANGED, cpus=now.online),
        )  # fmt: skip
        if self._connection:
            self._connection.close()
