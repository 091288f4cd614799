"""One connection to a container runtime, from connecting to its close.

Its life:

1. The plugin connects to the runtime's socket. If no process listens there: ABSENT.
2. It calls RegisterPlugin. The runtime may reject that, or close the connection: REFUSED.
3. The runtime calls Configure and then Synchronize, with all containers that exist. The answer
   updates those that are on the wrong CPUs. From here on the session is synchronized; a runtime
   that closes the connection before is REFUSED as well.
4. The runtime calls the plugin for each container that is created, updated or started. The plugin
   calls UpdateContainers for a container that the runtime has not asked about.
5. The runtime closes the connection when it stops, or drops a plugin that answers too late: LEFT.
   The plugin closes it when the runtime sends invalid data: PROTOCOL_ERROR.
   The daemon closes it when the CPUs of the host or the configuration have changed, since only
   Synchronize reports all containers: OUTDATED.

What the daemon does after each outcome:

| outcome        | next connection                                                               |
|----------------|-------------------------------------------------------------------------------|
| ABSENT         | when the socket is created, and several times within the 4 s after that       |
| REFUSED        | to another socket as soon as there is one; to the same one after 5 s          |
| PROTOCOL_ERROR | the same as REFUSED                                                           |
| LEFT           | to another socket as soon as there is one; to the same one after 0.1 s        |
| OUTDATED       | the same as LEFT                                                              |
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import inotify, sockets
from isolcpus_dp.nri import plugin, ttrpc
from isolcpus_dp.nri.cgroup import Quotas
from isolcpus_dp.nri.plugin import Plugin, Update
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.nri.pinning import Rules
    from isolcpus_dp.nri.unconfirmed import Unconfirmed

log = logging.getLogger(__name__)

NAME = "isolcpus-dp"
# The runtime calls its plugins in the order of their indices. No index helps against another plugin
# that sets the cpuset of the same container: the runtime rejects that in any order.
INDEX = "10"
VERSION = "0.6.0"

# The runtime gives a plugin 5 s to register.
_REGISTER_SECONDS = 5.0
# The runtime updates one container after the other, and starts others in between.
_UPDATE_SECONDS = 30.0


class Outcome(enum.Enum):
    """How a session ended; see the table above."""

    ABSENT = enum.auto()
    REFUSED = enum.auto()
    PROTOCOL_ERROR = enum.auto()
    LEFT = enum.auto()
    OUTDATED = enum.auto()

    @property
    def retry_seconds(self) -> float:
        """The delay before the next connection to the same socket."""
        return 5.0 if self in (Outcome.REFUSED, Outcome.PROTOCOL_ERROR) else 0.1


class Session:
    """One connection; `run` is called once. Also the plugin's interface to the connection."""

    def __init__(
        self,
        socket: Path,
        cgroups: Path,
        rules: Rules,
        unconfirmed: Unconfirmed,
        on_synchronized: Callable[[str], None],
    ) -> None:
        """`on_synchronized` is called with the runtime's name and version."""
        self.rules = rules
        self.unconfirmed = unconfirmed
        self._socket = socket
        self._on_synchronized = on_synchronized
        self._is_synchronized = False
        self._is_outdated = False
        self._written = inotify.Watch()
        self.quotas = Quotas(cgroups, self._written)
        self._plugin = Plugin(self)
        self._connection: ttrpc.Connection | None = None
        self._updates: set[asyncio.Task[None]] = set()  # the event loop holds weak references only

    async def run(self) -> Outcome:
        """Connects, registers, and returns when the connection is closed."""
        with self._written:
            connection = await self._connect()
            if connection is None:
                return Outcome.ABSENT
            rejection = "it closed the connection before it listed its containers"
            try:
                if not self._is_outdated:
                    self._connection = connection
                    rejection = await self._register(connection) or rejection
                    await connection.lost.wait()
            finally:
                self._connection = None
                connection.close()
        return self._outcome(connection.protocol_error, rejection)

    def end(self) -> None:
        """Closes the connection, also while it is being made: its rules are outdated."""
        self._is_outdated = True
        if self._connection:
            self._connection.close()

    def synchronized(self, runtime: str) -> None:
        """For the plugin: the runtime has reported all its containers."""
        self._is_synchronized = True
        self._on_synchronized(runtime)

    def update(self, update: Update) -> None:
        """For the plugin: updates a container after the current call is answered."""
        if self._connection:
            task = asyncio.create_task(self._update(self._connection, update))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

    async def _connect(self) -> ttrpc.Connection | None:
        """None if no process listens, or if the socket was replaced while connecting."""
        identity = sockets.identify(self._socket)
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: ttrpc.Connection(plugin.TO_PLUGIN, plugin.TO_RUNTIME, self._plugin.answer),
                str(self._socket),
            )
        except OSError:
            return None
        if identity is None or sockets.identify(self._socket) != identity:
            connection.close()
            return None
        return connection

    async def _register(self, connection: ttrpc.Connection) -> str:
        """Registers with the runtime. If that fails, the connection is closed: why, or nothing."""
        request = api.RegisterPluginRequest(
            plugin_name=NAME, plugin_idx=INDEX, NRI_version=VERSION
        ).SerializeToString()
        try:
            await connection.call(
                plugin.RUNTIME_SERVICE, "RegisterPlugin", request, _REGISTER_SECONDS
            )
        except (ttrpc.CallError, ttrpc.Lost, asyncio.TimeoutError) as error:
            connection.close()
            return str(error) or "no answer"
        return ""

    async def _update(self, connection: ttrpc.Connection, update: Update) -> None:
        request = api.UpdateContainersRequest(update=[update.message]).SerializeToString()
        try:
            answer = await connection.call(
                plugin.RUNTIME_SERVICE, "UpdateContainers", request, _UPDATE_SECONDS
            )
            if api.UpdateContainersResponse.FromString(answer).failed:
                _update_failed(update, "see the runtime's log")
            else:
                self.unconfirmed.confirm(update.message.container_id)
        except ttrpc.Lost:
            pass  # the next connection reports all containers again
        except (ttrpc.CallError, asyncio.TimeoutError, DecodeError) as error:
            # containerd reports a failed update as the call's error. A container that has ended
            # needs no update; the others are updated by the next connection. A new connection is
            # not forced: its update might fail the same way, again and again.
            _update_failed(update, str(error) or "no answer")

    def _outcome(self, protocol_error: str, rejection: str) -> Outcome:
        """The outcome of a connection that is closed; logged, with the reason."""
        if self._is_outdated:
            return Outcome.OUTDATED
        if protocol_error:
            emit(
                log, Event.PROTOCOL_ERROR, "protocol error: %s; connecting again in %.0f s, or when"
                " the runtime creates a new socket",
                protocol_error, Outcome.PROTOCOL_ERROR.retry_seconds,
            )  # fmt: skip
            return Outcome.PROTOCOL_ERROR
        if not self._is_synchronized:
            emit(
                log, Event.RUNTIME_REFUSED, "the runtime rejected the plugin: %s; trying again in"
                " %.0f s, or when it creates a new socket",
                rejection, Outcome.REFUSED.retry_seconds,
            )  # fmt: skip
            return Outcome.REFUSED
        emit(log, Event.RUNTIME_LEFT, "the runtime closed the connection")
        return Outcome.LEFT


def _update_failed(update: Update, reason: str) -> None:
    emit(
        log, Event.UPDATE_FAILED, "could not update container %s of pod %s: %s",
        update.container, update.pod, reason, pod=update.pod, container=update.container,
    )  # fmt: skip
