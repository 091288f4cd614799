"""One connection to a container runtime, from connecting to its close.

Its life:

1. The plugin connects to the runtime's socket. If no process listens there: ABSENT.
2. It calls RegisterPlugin. The runtime may reject that, or close the connection: REFUSED.
3. The runtime calls Configure and then Synchronize, with all containers that exist. The answer
   updates those that are on the wrong CPUs. From here on the session is synchronized; a runtime
   that closes the connection before is REFUSED as well.
4. The runtime calls the plugin for each container that is created, updated or started. The plugin
   calls UpdateContainers for a container that the runtime has not asked about.
5. The runtime closes the connection when it stops: LEFT. It also drops a plugin that answers too
   late or sends what it cannot use. If it closes the connection within 10 s after Synchronize, it
   may do so each time: DROPPED. The plugin closes the connection when the runtime sends invalid
   data: PROTOCOL_ERROR.
6. When the CPUs of the host or the configuration have changed, a new session is needed, since only
   Synchronize reports all containers: OUTDATED. A session that is not synchronized is closed. A
   synchronized one goes on answering, by the new rules, until its successor receives Synchronize
   and closes it. So the runtime has a plugin at every moment, and never two that answer: it adds
   the successor to its plugins after Synchronize, and until then creates no container. containerd
   does so from 1.7.26 and 2.0.3 on (`BlockPluginSync`). Older ones release their lock before they
   add the successor, and others may create a container in between, too, as at each connection.

`outcome` has what the daemon does then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import inotify, sockets
from isolcpus_dp.nri import ttrpc
from isolcpus_dp.nri.outcome import LONGEST_DELAY, Outcome
from isolcpus_dp.nri.plugin import Plugin
from isolcpus_dp.nri.protocol import RUNTIME_SERVICE, TO_PLUGIN, TO_RUNTIME
from isolcpus_dp.nri.quota import Quotas
from isolcpus_dp.nri.sandbox import Sandboxes
from isolcpus_dp.nri.watches import Watches
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.nri.messages import Update
    from isolcpus_dp.nri.pinning import Rules
    from isolcpus_dp.nri.requested import Requested
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
UPDATE_SECONDS = 30.0
# A runtime that keeps a synchronized plugin for less time than this may drop the next one, too.
LASTING_SECONDS = 10.0


class Session:
    """One connection; `run` is called once. Also the plugin's interface to the connection."""

    def __init__(
        self,
        socket: Path,
        cgroups: Path,
        rules: Rules,
        unconfirmed: Unconfirmed,
        requested: Requested,
        on_synchronized: Callable[[str], None],
        predecessor: Session | None = None,
    ) -> None:
        """`on_synchronized` is called with the runtime's name and version. `predecessor` is an
        outdated session that answers until this one is synchronized.
        """
        self.rules = rules
        self.unconfirmed = unconfirmed
        self.requested = requested
        self._socket = socket
        self._on_synchronized = on_synchronized
        self._predecessor = predecessor
        self._synchronized_at: float | None = None
        self._outdated = asyncio.Event()
        self._written = inotify.Watch()
        self._open = contextlib.ExitStack()  # closes `_written`
        watches = Watches(self._written)
        self.quotas = Quotas(cgroups, watches)
        self.sandboxes = Sandboxes(cgroups, lambda: self.rules, watches)
        self._plugin = Plugin(self)
        self._connection: ttrpc.Connection | None = None
        self._updates: set[asyncio.Task[None]] = set()  # the event loop holds weak references only
        # Of two updates of a container, the later one must win. A runtime may answer concurrent
        # calls in any order.
        self._turn = asyncio.Lock()

    async def run(self) -> Outcome:
        """Connects, registers, and returns when the connection is closed or outdated.

        Then it is closed, except for what `serving` returns. Raises OSError if descriptors or
        inotify's limits are used up.
        """
        outcome = None
        try:
            self._open.enter_context(self._written)
            outcome = await self._live()
            return outcome
        finally:
            if outcome is not Outcome.OUTDATED or self._synchronized_at is None:
                self.close()
            if outcome is not Outcome.OUTDATED:
                self._close_predecessor()

    @property
    def serving(self) -> Session | None:
        """After `run`: the outdated session that still answers the runtime; None if there is none.

        It must become the predecessor of the next one, or be closed.
        """
        return self if self._connection else self._predecessor

    def outdate(self, rules: Rules) -> None:
        """Ends the session, also while it is being made: its rules are outdated.

        Until the next one is synchronized, the new rules are used for the runtime's calls.
        """
        self.rules = rules
        if self._predecessor:
            self._predecessor.rules = rules
        self._outdated.set()
        if self._connection and self._synchronized_at is None:
            self._connection.close()

    def close(self) -> None:
        """Closes the connection."""
        if self._connection:
            self._connection.close()
            self._connection = None
        # Not now: it takes 10 ms, and the runtime may wait for the answer to Synchronize.
        asyncio.get_running_loop().call_soon(self._open.close)

    def synchronizing(self) -> None:
        """For the plugin: the runtime lists its containers; it is done with the predecessor."""
        before = self._predecessor
        if before and before._connection and not before._connection.lost.is_set():
            before._plugin.confirm_answered()

    def synchronized(self, runtime: str) -> None:
        """For the plugin: the runtime has reported all its containers."""
        self._synchronized_at = asyncio.get_running_loop().time()
        self._close_predecessor()
        self._on_synchronized(runtime)

    def update(self, update: Update) -> None:
        """For the plugin: updates a container after the current call is answered."""
        if self._connection:
            task = asyncio.create_task(self._update(self._connection, update))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)

    async def _live(self) -> Outcome:
        connection = self._connection = await self._connect()
        if connection is None:
            return Outcome.ABSENT
        rejection = "it closed the connection before it listed its containers"
        if not self._outdated.is_set():
            rejection = await self._register(connection) or rejection
            ends = [
                asyncio.ensure_future(event.wait()) for event in (connection.lost, self._outdated)
            ]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
        return self._outcome(connection.protocol_error, rejection)

    def _close_predecessor(self) -> None:
        if self._predecessor:
            self._predecessor.close()
            self._predecessor = None

    async def _connect(self) -> ttrpc.Connection | None:
        """None if no process listens, or if the socket was replaced while connecting.

        Raises OSError if descriptors are used up.
        """
        identity = sockets.identify(self._socket)
        try:
            _, connection = await asyncio.get_running_loop().create_unix_connection(
                lambda: ttrpc.Connection(TO_PLUGIN, TO_RUNTIME, self._plugin.answer),
                str(self._socket),
            )
        except OSError as error:
            if error.errno in sockets.USED_UP:
                raise
            return None
        if identity is None or sockets.identify(self._socket) != identity:
            connection.close()
            return None
        return connection

    async def _register(self, connection: ttrpc.Connection) -> str:
        """Registers with the runtime. If it rejects that, closes the connection; the reason."""
        request = api.RegisterPluginRequest(
            plugin_name=NAME, plugin_idx=INDEX, NRI_version=VERSION
        ).SerializeToString()
        try:
            await connection.call(RUNTIME_SERVICE, "RegisterPlugin", request, _REGISTER_SECONDS)
        except ttrpc.Lost:
            return ""
        except (ttrpc.CallError, asyncio.TimeoutError) as error:
            connection.close()
            return str(error) or "no answer"
        return ""

    async def _update(self, connection: ttrpc.Connection, update: Update) -> None:
        request = api.UpdateContainersRequest(update=[update.message]).SerializeToString()
        try:
            async with self._turn:
                answer = await connection.call(
                    RUNTIME_SERVICE, "UpdateContainers", request, UPDATE_SECONDS
                )
            if not api.UpdateContainersResponse.FromString(answer).failed:
                if update.confirms:
                    self.unconfirmed.confirm(update.message.container_id)
                return
            _update_failed(update, "see the runtime's log")
        except ttrpc.Lost:
            pass  # the next connection reports all containers again
        except (ttrpc.CallError, asyncio.TimeoutError, DecodeError, UnicodeDecodeError) as error:
            # containerd reports a failed update as the call's error. A container that has ended
            # needs no update; the others are updated by the next connection. A new connection is
            # not forced: its update might fail the same way, again and again.
            _update_failed(update, str(error) or "no answer")
        self.unconfirmed.add(update.message.container_id)  # an earlier update may have succeeded

    def _outcome(self, protocol_error: str, rejection: str) -> Outcome:
        """The outcome of a connection that is closed or outdated; logged, with the reason."""
        if self._outdated.is_set():
            return Outcome.OUTDATED
        if protocol_error:
            emit(
                log, Event.PROTOCOL_ERROR, "protocol error: %s; connecting again in %.0f s, or when"
                " the runtime creates a new socket",
                protocol_error, LONGEST_DELAY,
            )  # fmt: skip
            return Outcome.PROTOCOL_ERROR
        if self._synchronized_at is None and self._predecessor:
            # A runtime might accept only one plugin of a name.
            emit(
                log, Event.RUNTIME_REFUSED, "the runtime rejected a second connection of the"
                " plugin: %s; closing the first one and connecting again", rejection,
            )  # fmt: skip
            self._close_predecessor()
            return Outcome.OUTDATED
        if self._synchronized_at is None:
            emit(
                log, Event.RUNTIME_REFUSED, "the runtime rejected the plugin: %s; trying again in"
                " %.0f s, or when it creates a new socket",
                rejection, LONGEST_DELAY,
            )  # fmt: skip
            return Outcome.REFUSED
        seconds = asyncio.get_running_loop().time() - self._synchronized_at
        if seconds >= LASTING_SECONDS:
            emit(log, Event.RUNTIME_LEFT, "the runtime closed the connection")
            return Outcome.LEFT
        emit(
            log, Event.RUNTIME_LEFT, "the runtime closed the connection %.1f s after it had listed"
            " its containers; if it does that again, the next connection is made later", seconds,
        )  # fmt: skip
        return Outcome.DROPPED


def _update_failed(update: Update, reason: str) -> None:
    emit(
        log, Event.UPDATE_FAILED, "could not update container %s of pod %s: %s",
        update.container, update.pod, reason, pod=update.pod, container=update.container,
    )  # fmt: skip
