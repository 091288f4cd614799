"""Tells systemd a daemon's state, feeds the watchdog, and ends the daemon on a signal."""

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
    """sd_notify(3); does nothing without systemd."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()

    def notify(self, state: str) -> None:
        """Sends an assignment such as READY=1."""
        self._notifier.notify(state)

    def feed_watchdog(self) -> None:
        """Feeds the watchdog from the event loop from now on, twice per WatchdogSec=."""
        microseconds = os.environ.get("WATCHDOG_USEC")
        if microseconds:
            self.notify("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            loop.call_later(int(microseconds) / 2e6, self.feed_watchdog)


async def until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until it ends, or until SIGTERM or SIGINT; raises what it raises."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    task, stop = asyncio.create_task(work), asyncio.create_task(signalled.wait())
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
