"""What the daemons share when they read their configuration again, on SIGHUP.

How the new configuration is applied is up to each daemon. A wrong one is logged, and the daemon
goes on with the earlier one.
"""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path

from isolcpus_dp.service.events import Event, emit

log = logging.getLogger(__name__)

# In the runtime directory of a daemon.
PUBLISHED = "configuration"


def hold() -> None:
    """Holds SIGHUP back until `release`, so that it never ends a process that is still starting.

    It is not ignored: the files may have changed after the process has read them. Threads that are
    started meanwhile hold it back for ever, and child processes until they release it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def release() -> None:
    """Delivers a SIGHUP that was held back, and all later ones; to be called when it is handled."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def began() -> str:
    """The notification that begins a reload, with its time; READY=1 ends it (sd_notify(3))."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def succeeded(consequence: str) -> None:
    """Logs that the configuration is in force, and what follows from it."""
    emit(log, Event.RELOADED, "read the configuration again: %s", consequence)


def failed(error: Exception) -> None:
    """Logs why the files cannot be used, in the sentence of the error."""
    emit(log, Event.RELOAD_FAILED, "%s; the earlier configuration stays in force", error)


class Published:
    """The fingerprint of the configuration in force, in a file.

    The directory is the one that systemd provides (RuntimeDirectory=); without one, nothing is
    written. `isolcpus-dp check` compares the fingerprint with that of the files.
    """

    def __init__(self, directory: Path | None) -> None:
        self._file = directory / PUBLISHED if directory else None

    def remove(self) -> None:
        """Removes the file, when the daemon ends."""
        if not self._file:
            return
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            emit(log, Event.DEGRADED, "could not remove %s: %s", self._file, error.strerror)

    def write(self, fingerprint: str) -> None:
        """Writes the file. If that fails, it is logged; the daemon goes on."""
        if not self._file:
            return
        temporary = self._file.with_name(f".{self._file.name}")
        try:
            temporary.write_text(f"{fingerprint}\n")
            temporary.replace(self._file)  # a reader never sees half of it
        except OSError as error:
            emit(
                log, Event.DEGRADED,
                "could not write %s: %s; isolcpus-dp check cannot tell whether the daemon uses the"
                " configuration in the files", self._file, error.strerror,
            )  # fmt: skip
