"""A kubelet or runtime process of a storm, as the storm sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.testbed.storm.plan import Restart

_ROOT = Path(__file__).parents[3]


class Peer:
    """A loaded process, which starts when it is told to; `events` has what it did, with times."""

    def __init__(self, restart: Restart, process: asyncio.subprocess.Process) -> None:
        self.restart = restart
        self.events: dict[str, float] = {}  # by event, in their order: time.monotonic()
        self._process = process
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @property
    def last(self) -> str:
        """The last event."""
        return next(reversed(self.events), "")

    @property
    def has_ended(self) -> bool:
        return self._reading.done()

    def go(self) -> None:
        """Lets it start."""
        assert self._process.stdin
        self._process.stdin.write(b"go\n")

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> bool:
        """Waits until the condition is true or the process has ended; False after `seconds`."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._until(condition), seconds)
        return condition()

    async def end(self) -> None:
        """Ends it as its restart says."""
        self._send(self.restart.number)
        await self.until(lambda: self.has_ended, 5.0)

    async def remove(self) -> None:
        """Kills it if it still runs."""
        self._send(signal.SIGKILL)
        await self._process.wait()
        await self._reading

    def _send(self, number: signal.Signals) -> None:
        # Process.send_signal() would reap it, and asyncio would not know how it ended.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not (condition() or self.has_ended):
            self._changed.clear()
            await self._changed.wait()

    async def _read(self) -> None:
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            at, _, event = line.decode().rstrip("\n").partition(" ")
            self.events[event] = float(at)
            self._changed.set()
        # Set when this task is done, not while it ends.
        asyncio.get_running_loop().call_soon(self._changed.set)


async def load(module: str, restart: Restart, arguments: Iterable[str], log: Path) -> Peer:
    """Starts a process of a module of this package; returns when it has loaded everything."""
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(_ROOT))))
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"{__package__}.{module}"),
            *(restart.moment, f"{restart.after:.6f}", str(int(restart.number)), *arguments),
            env={**os.environ, "PYTHONPATH": path},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    peer = Peer(restart, process)
    if not await peer.until(lambda: "loaded" in peer.events, 60.0):
        await peer.remove()
        raise RuntimeError(f"{module} did not start: {log.read_text()}")
    return peer
