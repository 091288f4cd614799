"""Unix sockets of others: waits until somebody listens on one, and tells who does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

from isolcpus_dp.host import inotify

# Between bind(), which inotify shows, and listen(), which it does not, a new socket refuses
# connections. It is tried again at these distances, in seconds, and then left for dead.
_BIND_TO_LISTEN = tuple(0.001 * 2**attempt for attempt in range(12))  # 4 s in all

_MADE = inotify.IN_CREATE | inotify.IN_MOVED_TO
_GONE = inotify.IN_DELETE | inotify.IN_MOVED_FROM


class Gone(Exception):
    """The folder of a socket went away; one sentence."""


def creation(path: Path) -> int | None:
    """When a socket was bound, in nanoseconds: tells a new one from the one before it.

    A socket's modification time never changes afterwards, while its inode number is soon used
    again. None if there is no such file.
    """
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return None


class SocketWatch:
    """Watches somebody's socket and its folder, from `with` to the end of the block.

    Not to be left while somebody waits for an answer: that takes 10 ms (see inotify.Watch).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = asyncio.Event()
        self._gone = False
        self._watch = inotify.Watch()
        self._folder: int | None = None  # its inode

    def __enter__(self) -> SocketWatch:
        """Raises Gone if the folder is not there."""
        folder = self._path.parent
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._watch)
            try:
                # A folder's own watch is silent as long as a bound socket of ours lies in it. Its
                # parent's stands first, or a folder that goes in between would never be missed.
                self._watch.add(folder.parent, _GONE, self._on_gone, folder.name)
                self._watch.add(folder, _MADE, self._changed.set, self._path.name)
            except FileNotFoundError:
                raise self._left() from None
            stack.pop_all()
        self._folder = _inode(folder)
        return self

    def __exit__(self, *exception: object) -> None:
        self._watch.__exit__(*exception)

    async def live(self, other_than: int | None = None) -> int:
        """Waits until somebody listens on the socket; its creation() is returned.

        A socket created at `other_than` is passed over. A process that is killed leaves its
        socket behind, dead: that is waited out. Raises Gone if the folder goes away.
        """
        async for _ in self.attempts():
            created = _listening_since(self._path)
            if created is not None and created != other_than:
                return created
        raise AssertionError("attempts() have no end")

    async def attempts(self) -> AsyncIterator[None]:
        """Comes back whenever it is worth trying to connect: at once, and after every change.

        Raises Gone if the folder goes away.
        """
        delays = iter(_BIND_TO_LISTEN)
        while not self._gone:
            self._changed.clear()
            yield
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), next(delays, None))
            if self._changed.is_set():  # even if both have come at once
                delays = iter(_BIND_TO_LISTEN)
        raise self._left()

    async def replaced(self, created: int | None, seconds: float) -> None:
        """Waits until there is a socket that is not the one of that creation(), at most so long.

        It is not merely waited for a change: that the socket appeared may be told only after
        somebody has already talked to its owner. Comes back early if the folder goes away.
        """

        async def another() -> None:
            while not self._gone and creation(self._path) in (created, None):
                self._changed.clear()
                await self._changed.wait()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(another(), seconds)

    def _left(self) -> Gone:
        return Gone(f"{self._path.parent} was removed or moved")

    def _on_gone(self) -> None:
        # The inode is only for when events were dropped: the next folder may have the same one.
        if not (self._watch.guesses and _inode(self._path.parent) == self._folder):
            self._gone = True
        self._changed.set()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _listening_since(path: Path) -> int | None:
    """creation() of the socket if it takes connections."""
    created = creation(path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            pass  # its queue of connections is full: somebody listens
        except OSError:
            return None
    return created if created == creation(path) else None


async def folder(path: Path) -> None:
    """Waits until there is a folder of this name in the folder above, which must exist.

    Raises OSError if that cannot be watched.
    """
    made = asyncio.Event()
    with inotify.Watch() as watch:
        watch.add(path.parent, _MADE, made.set, path.name)
        while not path.is_dir():
            await made.wait()
            made.clear()


def peer(path: Path) -> str | None:
    """Which process listens on a unix socket, in words; None if the socket is dead or absent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:  # somebody listens, but has not kept up with accepting
            return "another process"
        except OSError:
            return None
        # The kernel notes who called listen(): unix(7), SO_PEERCRED.
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
    pid = struct.unpack("3i", credentials)[0]
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"
