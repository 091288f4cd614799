"""The daemon's files in its runtime directory: the mark of a registration, and the pidfile.

isolcpus-dp-kubelet.service reads the mark, StarlingX's process monitor the pidfile.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.host.sockets import Identity

log = logging.getLogger(__name__)


class RuntimeDirectory:
    """The directory that systemd provides (RuntimeDirectory=); without one, nothing is written.

    If a file cannot be written, that is logged; the daemon goes on.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def mark_registered(self, socket: Identity) -> None:
        """Writes the mark of a registration; its modification time is that of the socket.

        isolcpus-dp-kubelet.service compares the two times before it restarts the daemon.
        """
        if not self._path:
            return
        mark = self._path / "registered"
        # Renamed into place after its time is set: a reader must never see another time.
        temporary = self._path / ".registered"
        try:
            temporary.touch(mode=0o600)
            os.utime(temporary, ns=(socket.bound_ns, socket.bound_ns))
            temporary.replace(mark)
        except OSError as error:
            emit(
                log, Event.DEGRADED,
                "could not write %s: %s; if the kubelet recreates its socket while"
                " the connection stays open, the daemon is not restarted", mark, error.strerror,
            )  # fmt: skip

    def write_pidfile(self) -> None:
        """Writes the pid of this process, which StarlingX's process monitor watches."""
        if not self._path:
            return
        pidfile = self._path / "isolcpus-dp.pid"
        try:
            pidfile.write_text(f"{os.getpid()}\n")
        except OSError as error:
            emit(
                log, Event.DEGRADED,
                "could not write %s: %s; StarlingX's process monitor, if"
                " it is in use, will restart the daemon", pidfile, error.strerror,
            )  # fmt: skip

    def clear_mark(self) -> None:
        """Removes the mark of a registration that has ended."""
        self._remove("registered")

    def clear_pidfile(self) -> None:
        """Removes the pidfile."""
        self._remove("isolcpus-dp.pid")

    def _remove(self, name: str) -> None:
        if not self._path:
            return
        file = self._path / name
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            emit(log, Event.DEGRADED, "could not remove %s: %s", file, error.strerror)
