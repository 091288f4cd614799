"""inotify(7) for asyncio: waits for changes of files and directories without polling.

Calls three functions of libc through ctypes: the Python bindings that all supported distributions
package need a thread or a poll interval.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# <sys/inotify.h>
IN_MODIFY = 0x2
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_IN_MASK_ADD = 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)


class _Interest(NamedTuple):
    """What is watched, and the callback."""

    entry: str | None  # a name in the directory; None for any name, and for a watched file
    on_change: Callable[[], None]


class Watch:
    """Calls back from the event loop when files or directories change. A context manager.

    If the kernel had to drop events, every callback is called.

    Use one Watch for several directories: closing it takes about 10 ms, as the kernel waits for
    all readers of its lists of watches.
    """

    def __init__(self) -> None:
        self.guesses = False  # whether on_change() is being called because events were dropped
        self._interests: dict[int, list[_Interest]] = {}
        self._descriptor = -1

    def add(
        self, directory: Path, events: int, on_change: Callable[[], None], entry: str | None = None
    ) -> None:
        """Calls `on_change()` for each of the `events` on that entry of the directory, or on any.

        A directory may be added several times, for different entries; every callback then gets the
        events of all of them on its entry. Raises OSError if the directory cannot be watched.
        """
        mask = events | _IN_ONLYDIR | _IN_MASK_ADD
        self._add(directory, mask, _Interest(entry, on_change))

    def add_file(self, file: Path, events: int, on_change: Callable[[], None]) -> int:
        """Calls `on_change()` for each of the `events` on a file. Returns the argument of `remove`.

        Raises OSError if the file cannot be watched.
        """
        return self._add(file, events, _Interest(None, on_change))

    def remove(self, watch: int) -> None:
        """Stops watching a file. Also needed after its removal: some file systems send no event."""
        if self._interests.pop(watch, None):
            _libc.inotify_rm_watch(self._descriptor, watch)

    def _add(self, path: Path, mask: int, interest: _Interest) -> int:
        watch: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask)
        self._interests.setdefault(_checked(watch, path), []).append(interest)
        return watch

    def __enter__(self) -> Watch:
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), None)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._interests.clear()  # the callbacks keep what they refer to

    def _read(self) -> None:
        events = os.read(self._descriptor, 65536)
        while events:
            watch, mask, _, length = struct.unpack_from("iIII", events)
            name = os.fsdecode(events[16 : 16 + length].rstrip(b"\0"))
            events = events[16 + length :]
            if mask & _IN_Q_OVERFLOW:
                self.guesses = True
                for interest in [one for same in self._interests.values() for one in same]:
                    interest.on_change()
                self.guesses = False
            elif mask & _IN_IGNORED:  # the directory or file was removed
                self._interests.pop(watch, None)
            else:
                for interest in list(self._interests.get(watch, ())):
                    if interest.entry in (None, name):
                        interest.on_change()


def _checked(result: int, path: Path | None) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), path and str(path))
    return result
