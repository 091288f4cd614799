"""Messages to systemd: readiness, status and the watchdog.

sdnotify sends them. Where it is not packaged, as for EL 10, systemd-python does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from isolcpus_dp.host import files

# Sends the text of a message; does nothing without systemd.
Send = Callable[[str], None]


def _sender() -> Send:
    try:
        import sdnotify
    except ModuleNotFoundError:
        import systemd.daemon

        def send(state: str) -> None:
            # As with sdnotify, a daemon does not end because systemd cannot be reached.
            with contextlib.suppress(OSError):
                systemd.daemon.notify(_safe(state))

        return send
    notifier = sdnotify.SystemdNotifier()
    # sdnotify encodes to Latin-1, and drops what it cannot encode. systemd expects UTF-8.
    return lambda state: notifier.notify(_safe(state).encode().decode("latin-1"))


def _safe(state: str) -> str:
    """The message with its STATUS=, which comes last, as one line that a terminal can show.

    The text may come from others. A line of it would be an assignment, such as MAINPID=.
    """
    assignments, key, status = state.partition("STATUS=")
    return f"{assignments}{key}{files.printable(status)}"


class Systemd:
    """sd_notify(3); does nothing without systemd."""

    def __init__(self) -> None:
        self.notify: Send = _sender()

    def feed_watchdog(self) -> None:
        """Feeds the watchdog from the event loop from now on, twice per WatchdogSec=."""
        microseconds = os.environ.get("WATCHDOG_USEC")
        if microseconds:
            self.notify("WATCHDOG=1")
            loop = asyncio.get_running_loop()
            loop.call_later(int(microseconds) / 2e6, self.feed_watchdog)
