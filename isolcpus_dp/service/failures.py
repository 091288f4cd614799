"""Failures of a daemon that goes on: each reason is logged once, and the next attempt is later.

A daemon does not end because a part of the host fails: systemd would start it again several times a
second.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.service.notify import Systemd

log = logging.getLogger(__name__)

# The delay of the next attempt, in seconds, begins with the first number and doubles.
FIRST_DELAY, LONGEST_DELAY = 0.1, 10.0


class Failures:
    """The reason of the last failure, and the delay of the next attempt."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._reason = ""  # empty if there was no failure since `end`
        self._delay = FIRST_DELAY

    def report(self, reason: str) -> float:
        """Logs a failure, unless it is the same as before; seconds until the next attempt.

        `reason` is a sentence, or a traceback. The status has its first line.
        """
        if reason != self._reason:
            emit(
                log, Event.FAILED, "%s; trying again, at intervals of up to %.0f s", reason,
                LONGEST_DELAY,
            )  # fmt: skip
        self._reason = reason
        # READY=1: whoever waits for the start, such as systemctl or the kubelet's unit, goes on.
        # WATCHDOG=1: there may be nobody else who sends it. The next attempt is within 10 s, less
        # than WatchdogSec= of the units.
        first_line = reason.partition("\n")[0]
        self._systemd.notify(f"READY=1\nWATCHDOG=1\nSTATUS=Failed, trying again: {first_line}")
        delay, self._delay = self._delay, min(2 * self._delay, LONGEST_DELAY)
        return delay

    def end(self) -> None:
        """The daemon works, or is about to try something else: the next failure is news."""
        self._reason, self._delay = "", FIRST_DELAY
