"""Sends entries to the systemd journal without waiting for it: a full journal loses entries.

systemd's own function waits, and a daemon that waits does not answer the kubelet or the runtime.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

_SOCKET = Path("/run/systemd/journal/socket")
# journald splits longer messages, and a datagram must not be longer than the socket's buffer.
_LONGEST_VALUE = 32 << 10


class Sender:
    """Sends an entry with each call; for `sender_function` of systemd's JournalHandler.

    The first entry that is sent after others were lost has their number in the field LOST.
    """

    def __init__(self, path: Path = _SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._lost = 0

    def __call__(self, message: str, /, **fields: object) -> None:
        """Sends an entry with this message and these fields."""
        if self._lost:
            fields["LOST"] = self._lost
            message = f"{message} ({self._lost} earlier entries were lost)"
        entry = b"".join(
            _field(name, value)
            for name, value in {**fields, "MESSAGE": message}.items()
            if name.isupper() and value is not None
        )
        try:
            self._socket.sendto(entry, str(self._path))
        except OSError:  # EAGAIN: its queue is full; others while it is replaced
            self._lost += 1
        else:
            self._lost = 0


def _field(name: str, value: object) -> bytes:
    """A field in the journal's own format (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    text = str(value).encode(errors="replace")[:_LONGEST_VALUE]
    if b"\n" not in text:
        return b"%s=%s\n" % (name.encode(), text)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(text)), text)
