"""Splits byte streams into NRI's frames and ttrpc's messages, whose headers contain their length.

Does not interpret them. Any bytes result in pieces, in waiting for more bytes, or in a FrameError.
"""

from __future__ import annotations

import struct

# NRI's multiplexer: logical connection, length. A frame holds at most one ttrpc message.
_FRAME = struct.Struct(">II")
# ttrpc: length, stream, type, flags.
_MESSAGE = struct.Struct(">IIBB")

MOST_DATA = 4 << 20
_MOST_PAYLOAD = _MESSAGE.size + MOST_DATA

Header = tuple[int, ...]


class FrameError(Exception):
    """A piece is longer than the protocol allows; the rest of the stream cannot be split."""


class Cutter:
    """Collects bytes and splits off complete pieces."""

    def __init__(self, header: struct.Struct, length_at: int, most: int) -> None:
        self._header = header
        self._length_at = length_at
        self._most = most
        self._bytes = bytearray()

    def cut(self, data: bytes) -> list[tuple[Header, bytes]]:
        """The pieces completed by `data`, each with the fields of its header.

        Raises FrameError.
        """
        self._bytes += data
        pieces, at = [], 0
        while at + self._header.size <= len(self._bytes):
            header = self._header.unpack_from(self._bytes, at)
            start = at + self._header.size
            end = start + header[self._length_at]
            if end - start > self._most:
                raise FrameError(
                    f"a message of {end - start} bytes; allowed are at most {self._most}"
                )
            if end > len(self._bytes):
                break
            pieces.append((header, bytes(self._bytes[start:end])))
            at = end
        del self._bytes[:at]
        return pieces


def frames() -> Cutter:
    """A Cutter for NRI's multiplexed connection; a header is (logical connection, length)."""
    return Cutter(_FRAME, 1, _MOST_PAYLOAD)


def messages() -> Cutter:
    """A Cutter for ttrpc in a logical connection; a header is (length, stream, type, flags)."""
    return Cutter(_MESSAGE, 0, MOST_DATA)


def message(connection: int, stream: int, kind: int, data: bytes) -> bytes:
    """The bytes of a ttrpc message in its own frame."""
    return b"".join(
        (
            _FRAME.pack(connection, _MESSAGE.size + len(data)),
            _MESSAGE.pack(len(data), stream, kind, 0),
            data,
        )
    )
