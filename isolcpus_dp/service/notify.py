"""Messages to systemd: readiness, status and the watchdog.

sdnotify sends them. Where it is not packaged, as for EL 10, systemd-python does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

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
                systemd.daemon.notify(_encodable(state))

        return send
    notifier = sdnotify.SystemdNotifier()
    # sdnotify encodes to Latin-1, and drops what it cannot encode. systemd expects UTF-8.
    return lambda state: notifier.notify(_encodable(state).encode().decode("latin-1"))


def _encodable(state: str) -> str:
    """The message without what UTF-8 cannot encode, such as a file name in another encoding."""
    return state.encode(errors="replace").decode()


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
