"""Messages to systemd: readiness, status and the watchdog."""

from __future__ import annotations

import asyncio
import os

import sdnotify


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
