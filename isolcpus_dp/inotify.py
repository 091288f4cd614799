"""inotify for asyncio: wait until something changes in a folder, without looking again and again.

Three calls of libc through ctypes: the packaged Python bindings that supported distributions have
in common need a thread or a poll interval.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

# <sys/inotify.h>
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
_IN_ONLYDIR = 0x1000000

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Calls `on_change(name)` from the event loop for each of the `events` on an entry of a folder.

    Used as a context manager. Raises OSError if the folder cannot be watched.
    """

    def __init__(self, folder: Path, events: int, on_change: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), folder)
        try:
            mask = events | _IN_ONLYDIR
            _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), mask), folder)
        except OSError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Watch:
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        events = os.read(self._descriptor, 65536)
        while events:
            _, _, _, length = struct.unpack_from("iIII", events)
            name = events[16 : 16 + length].rstrip(b"\0")
            events = events[16 + length :]
            self._on_change(os.fsdecode(name))


def _checked(result: int, folder: Path) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(folder))
    return result
