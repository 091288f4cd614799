"""Unix sockets of other processes: their identity, who listens on them, and waiting for that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from isolcpus_dp.host import inotify

# Between bind(), which inotify reports, and listen(), which it does not, a new socket refuses
# connections. Connecting is retried after these delays, in seconds; then the socket counts as dead.
_BIND_TO_LISTEN = tuple(0.001 * 2**attempt for attempt in range(12))  # 4 s in all

_CREATED = inotify.IN_CREATE | inotify.IN_MOVED_TO
_REMOVED = inotify.IN_DELETE | inotify.IN_MOVED_FROM


class Gone(Exception):
    """The directory of a socket was removed or moved; the message is one sentence."""


class Identity(NamedTuple):
    """Distinguishes a socket from an earlier one at the same path.

    File systems reuse inode numbers at once, so the time is part of it. It is the modification
    time, which nothing changes after bind(); chmod and similar calls change the time of the last
    status change.
    """

    inode: int
    bound_ns: int  # time of its bind(), in nanoseconds since 1970


def identify(path: Path) -> Identity | None:
    """The identity of the file at the path; None if there is none. Links are not followed."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Identity(status.st_ino, status.st_mtime_ns)


class SocketWatch:
    """Watches another process's socket and its directory. A context manager.

    Leaving it takes 10 ms (see inotify.Watch), so do not leave it while a peer waits for an answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = asyncio.Event()
        self._gone = False
        self._watch = inotify.Watch()
        self._directory: int | None = None  # the inode of the socket's directory
        self._delays = iter(_BIND_TO_LISTEN)

    def __enter__(self) -> SocketWatch:
        """Raises Gone if the directory is absent."""
        directory = self._path.parent
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._watch)
            try:
                # The directory's own watch does not report its removal while this process has a
                # bound socket in it. The parent is watched first; otherwise a removal in between
                # would never be noticed.
                self._watch.add(directory.parent, _REMOVED, self._on_gone, directory.name)
                self._watch.add(directory, _CREATED, self._changed.set, self._path.name)
            except FileNotFoundError:
                raise self._left() from None
            stack.pop_all()
        self._directory = _inode(directory)
        return self

    def __exit__(self, *exception: object) -> None:
        self._watch.__exit__(*exception)

    async def changed(self, seconds: float | None = None) -> bool:
        """Waits at most so long for the socket to be created; returns whether it was.

        A socket created since the last call counts. Raises Gone if the directory is removed.
        """
        changed = True
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            changed = self._changed.is_set()  # it may be set at the moment of the timeout
        self._changed.clear()
        if self._gone:
            raise self._left()
        if changed:
            self._delays = iter(_BIND_TO_LISTEN)
        return changed

    async def next_attempt(self) -> None:
        """Waits until it makes sense to connect again.

        That is when the socket is created, and several times in the 4 s after that, as its owner
        may not have called listen() yet. Raises Gone if the directory is removed.
        """
        await self.changed(next(self._delays, None))

    async def listening(self, other_than: Identity | None = None) -> Identity:
        """Waits until a process listens on the socket; returns its identity.

        The socket `other_than` is ignored, and so is a dead one: a killed process leaves its socket
        file behind. Raises Gone if the directory is removed.
        """
        delays = iter(_BIND_TO_LISTEN)
        while True:
            identity = _listened_on(self._path)
            if identity is not None and identity != other_than:
                return identity
            if await self.changed(next(delays, None)):
                delays = iter(_BIND_TO_LISTEN)

    async def replaced(self, identity: Identity | None, seconds: float) -> None:
        """Waits at most so long for a socket of another identity.

        The event alone is not enough: inotify may report a socket after a connection to its owner
        was made. Raises Gone if the directory is removed.
        """

        async def another() -> None:
            while identify(self._path) in (identity, None):
                await self.changed()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(another(), seconds)

    def _left(self) -> Gone:
        return Gone(f"{self._path.parent} was removed or moved")

    def _on_gone(self) -> None:
        # The inode is compared only if events were dropped: a new directory may have the same one.
        if not (self._watch.guesses and _inode(self._path.parent) == self._directory):
            self._gone = True
        self._changed.set()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _listened_on(path: Path) -> Identity | None:
    """The identity of the socket if it accepts connections."""
    identity = identify(path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            pass  # the queue of connections is full, so a process listens
        except OSError:
            return None
    return identity if identity == identify(path) else None


async def directory(path: Path) -> None:
    """Waits until the directory exists; its parent must exist.

    Raises OSError if the parent cannot be watched.
    """
    created = asyncio.Event()
    with inotify.Watch() as watch:
        watch.add(path.parent, _CREATED, created.set, path.name)
        while not path.is_dir():
            await created.wait()
            created.clear()


def peer(path: Path) -> str | None:
    """The process that listens on a unix socket, as text; None if the socket is dead or absent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0)
        try:
            connection.connect(str(path))
        except BlockingIOError:  # a process listens, but its queue of connections is full
            return "another process"
        except OSError:
            return None
        # The credentials of the process that called listen(): unix(7), SO_PEERCRED.
        credentials = connection.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
    pid = struct.unpack("3i", credentials)[0]
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"
