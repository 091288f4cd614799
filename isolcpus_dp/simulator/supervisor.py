"""A stand-in for systemd: runs a daemon, receives its notifications, restarts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# RestartSec= of the units.
RESTART_SECONDS = 0.1

_CREDENTIALS = struct.Struct("3i")  # pid, uid and gid: unix(7), SCM_CREDENTIALS


@dataclass
class Worker:
    """A process of the daemon that has sent notifications; times are time.monotonic().

    The pinning daemon is its own only worker.
    """

    pid: int
    ready: float | None = None  # of its last READY=1
    registered: float | None = None
    status: str = ""  # its last STATUS= of sd_notify(3)


@dataclass
class Run:
    """One start of the daemon, until its main process ends; times are time.monotonic()."""

    started: float
    pid: int | None = None  # of its main process; None while it is being started
    ended: float | None = None
    exit_status: int | None = None
    status: str = ""  # the last STATUS= of any process, as systemd shows it
    is_ready: bool = False  # whether any process has sent READY=1
    fed: int = 0  # how many times any process has sent WATCHDOG=1
    notifiers: list[Worker] = field(default_factory=list)  # all processes that sent notifications

    @property
    def workers(self) -> list[Worker]:
        """The workers so far, in the order of their first notifications; the last one is current.

        The main process counts only if there is no other.
        """
        return [one for one in self.notifiers if one.pid != self.pid] or self.notifiers


class Supervisor:
    """Keeps a daemon running; `runs` has all its runs, the last one is current.

    `directory` contains the notification socket, the daemon's `log`, and the runtime directory,
    which is removed after each run, as by systemd.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.runs: list[Run] = []
        self.runtime_dir = directory / "run"
        self.log = directory / "log"
        self._command = [str(word) for word in command]
        self._notify_socket = directory / "notify"
        self._environment = {
            **(os.environ if environment is None else environment),
            "NOTIFY_SOCKET": str(self._notify_socket),
            "RUNTIME_DIRECTORY": str(self.runtime_dir),
        }
        self._changed = asyncio.Event()

    @property
    def current(self) -> Run:
        return self.runs[-1]

    @property
    def workers(self) -> list[Worker]:
        """The workers of all runs."""
        return [worker for run in self.runs for worker in run.workers]

    async def until(self, condition: Callable[[Run], bool], seconds: float = 20.0) -> Run:
        """Waits until the condition is true of the current run. Raises asyncio.TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.runs or not condition(self.current):
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
        return self.current

    async def worker(
        self,
        condition: Callable[[Worker], bool],
        other_than: Worker | None = None,
        seconds: float = 20.0,
    ) -> Worker:
        """Waits until the condition is true of the latest worker, if it is not `other_than`.

        Raises asyncio.TimeoutError.
        """

        def found(run: Run) -> bool:
            return any(one is not other_than and condition(one) for one in run.workers[-1:])

        run = await self.until(found, seconds)
        return run.workers[-1]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Runs the daemon within the block, and terminates it at its end."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notified:
            notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            notified.bind(str(self._notify_socket))
            loop.add_reader(notified, self._hear, notified)
            task = asyncio.create_task(self._keep_running())
            try:
                yield self
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                loop.remove_reader(notified)
                self._notify_socket.unlink()

    async def _keep_running(self) -> None:
        while True:
            self.runtime_dir.mkdir()
            try:
                await self._run()
            finally:
                shutil.rmtree(self.runtime_dir)
            await asyncio.sleep(RESTART_SECONDS)

    async def _run(self) -> None:
        run = Run(time.monotonic())
        self.runs.append(run)  # before its first notification can arrive
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self._command, env=self._environment, stdout=log, stderr=log
            )
        run.pid = process.pid
        self._changed.set()
        try:
            await process.wait()
        except asyncio.CancelledError:
            # It may have ended at the same time, for another reason.
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        finally:
            run.ended, run.exit_status = time.monotonic(), process.returncode
            self._changed.set()

    def _hear(self, notified: socket.socket) -> None:
        text, [(_, _, credentials)], *_ = notified.recvmsg(
            4096, socket.CMSG_SPACE(_CREDENTIALS.size)
        )
        pid = _CREDENTIALS.unpack(credentials)[0]
        run, now = self.current, time.monotonic()
        worker = next((one for one in run.notifiers if one.pid == pid), None)
        if worker is None:
            worker = Worker(pid)
            run.notifiers.append(worker)
        for line in text.decode().splitlines():
            name, _, value = line.partition("=")
            if name == "READY":
                run.is_ready = True
                worker.ready = now
            if name == "WATCHDOG":
                run.fed += 1
            if name == "STATUS":
                run.status = worker.status = value
                if value.startswith("Registered"):
                    worker.registered = worker.registered or now
        self._changed.set()
