"""The life of a kubelet or runtime process in a storm: it tells what happens, and ends itself.

It loads everything, waits for a line on its standard input, and then starts. It writes a line for
each event to its standard output: the time (time.monotonic()) and the event.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable


class Life:
    """Ends this process with a signal, some time after a moment. Without a moment, it goes on."""

    def __init__(self, moment: str, seconds: float, number: int) -> None:
        self._moment = moment
        self._seconds = seconds
        self._number = number

    def begins(self, moment: str) -> None:
        """A moment has come, such as a call. Only the first of its kind counts."""
        self.tell(moment)
        if moment == self._moment:
            self._moment = ""
            loop = asyncio.get_running_loop()
            loop.call_later(self._seconds, os.kill, os.getpid(), self._number)

    def tell(self, event: str, at: float | None = None) -> None:
        """Writes an event; its time is now by default."""
        print(f"{time.monotonic() if at is None else at:.6f} {event}", flush=True)


def live(start: Callable[[Life], Awaitable[Callable[[], Awaitable[None]]]]) -> None:
    """Runs this process: the first three arguments are those of `Life`.

    `start` returns what stops it, which is called on SIGTERM. The process ends, too, when its
    standard input is closed.
    """
    moment, seconds, number = sys.argv[1:4]
    life = Life(moment, float(seconds), int(number))

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        loop.add_reader(sys.stdin, stopped.set)
        stop = await start(life)
        await stopped.wait()
        await stop()

    life.tell("loaded")
    if sys.stdin.readline():
        asyncio.run(until_stopped())
