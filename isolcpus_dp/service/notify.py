"""What each of the daemons owes systemd: its state, a fed watchdog, an end when it is asked to."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Coroutine
from typing import Any

import sdnotify

from isolcpus_dp.service.events import Event, emit

log = logging.getLogger(__name__)


class Systemd:
    """sd_notify(3); without systemd nobody hears it."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()

    def notify(self, state: str) -> None:
        """Tells an assignment such as READY=1."""
        self._notifier.notify(state)

    def feed_watchdog(self) -> None:
        """Proves from now on that the event loop turns, at half the interval systemd asks for."""
        microseconds = os.environ.get("WATCHDOG_USEC")
        if microseconds:
            self.notify("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            loop.call_later(int(microseconds) / 2e6, self.feed_watchdog)


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends or until systemd or a terminal asks the process to stop."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    task, stop = asyncio.create_task(work), asyncio.create_task(asked.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        emit(log, Event.STOPPED, "asked to stop")
    # Before Python 3.12, wait_for() may swallow a cancellation (bpo-37658).
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    if not task.cancelled():
        task.result()
