"""A stand-in for systemd: runs the daemon, receives its notifications, restarts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# RestartSec= of isolcpus-dp.service.
RESTART_SECONDS = 0.1


@dataclass
class Run:
    """One process of the daemon; times are time.monotonic(), 0 if not reached yet."""

    pid: int  # 0 while the process is being started
    started: float
    ready: float = 0.0
    registered: float = 0.0
    ended: float = 0.0
    exit_status: int | None = None
    status: str = ""  # the last STATUS= of sd_notify(3)


class Supervisor:
    """Keeps a daemon running; `runs` has all its processes, the last one is current.

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

    async def until(self, condition: Callable[[Run], bool], seconds: float = 20.0) -> Run:
        """Waits until the condition is true of the current run. Raises asyncio.TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.runs or not condition(self.current):
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
        return self.current

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Supervisor]:
        """Runs the daemon within the block, and terminates it at its end."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notified:
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
        run = Run(0, time.monotonic())
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
            process.terminate()
            await process.wait()
            raise
        finally:
            run.ended, run.exit_status = time.monotonic(), process.returncode
            self._changed.set()

    def _hear(self, notified: socket.socket) -> None:
        for line in notified.recv(4096).decode().splitlines():
            name, _, value = line.partition("=")
            if name == "READY":
                self.current.ready = time.monotonic()
            if name == "STATUS":
                self.current.status = value
                if value.startswith("Registered") and not self.current.registered:
                    self.current.registered = time.monotonic()
        self._changed.set()
