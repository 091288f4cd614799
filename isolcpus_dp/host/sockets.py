"""Unix sockets of other processes: identifies one, waits until somebody listens, tells who does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from isolcpus_dp.host import inotify

# Between bind(), which inotify shows, and listen(), which it does not, a new socket refuses
# connections. It is tried again at these distances, in seconds, and then taken for dead.
_BIND_TO_LISTEN = tuple(0.001 * 2**attempt for attempt in range(12))  # 4 s in all

_CREATED = inotify.IN_CREATE | inotify.IN_MOVED_TO
_REMOVED = inotify.IN_DELETE | inotify.IN_MOVED_FROM


class Gone(Exception):
    """The directory of a socket was removed or moved; one sentence."""


class Identity(NamedTuple):
    """Tells a socket from the one that was at its path before.

    File systems reuse inode numbers at once, so the time counts, too. It is the modification time:
    nothing changes it after bind(), while chmod and the like change the time of the last status
    change.
    """

    inode: int
    bound_ns: int  # when it was bound, in nanoseconds since the epoch


def identify(path: Path) -> Identity | None:
    """The identity of the file at the path; None if there is none. Links are not followed."""
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Identity(status.st_ino, status.st_mtime_ns)


class SocketWatch:
    """Watches another process's socket and its directory. A context manager.

    Leaving it takes 10 ms (see inotify.Watch): not while somebody waits for an answer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = asyncio.Event()
        self._gone = False
        self._watch = inotify.Watch()
        self._directory: int | None = None  # its inode
        self._delays = iter(_BIND_TO_LISTEN)

    def __enter__(self) -> SocketWatch:
        """Raises Gone if the directory is absent."""
        directory = self._path.parent
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._watch)
            try:
                # The directory's own watch does not report its removal as long as a bound socket of
                # ours is in it. Its parent is watched first: a directory that is removed in between
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
        """Waits until the socket was created, at most so long; whether it was.

        A socket created since the last call counts. Raises Gone if the directory goes away.
        """
        changed = True
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except asyncio.TimeoutError:
            changed = self._changed.is_set()  # both have come at once
        self._changed.clear()
        if self._gone:
            raise self._left()
        if changed:
            self._delays = iter(_BIND_TO_LISTEN)
        return changed

    async def next_attempt(self) -> None:
        """Waits until connecting may succeed after it has failed.

        That is when the socket was created, and several times within the 4 s after that: a socket
        that is bound may not be listened on yet. Raises Gone if the directory goes away.
        """
        await self.changed(next(self._delays, None))

    async def listening(self, other_than: Identity | None = None) -> Identity:
        """Waits until somebody listens on the socket; its identity is returned.

        A socket `other_than` is ignored. So is one that nobody listens on: a process that is killed
        leaves its socket behind. Raises Gone if the directory goes away.
        """
        while True:
            identity = _listened_on(self._path)
            if identity is not None and identity != other_than:
                return identity
            await self.next_attempt()

    async def replaced(self, identity: Identity | None, seconds: float) -> None:
        """Waits until there is a socket of another identity, at most so long.

        A mere change does not count: inotify may report a new socket only after somebody has
        already talked to its owner. Raises Gone if the directory goes away.
        """

        async def another() -> None:
            while identify(self._path) in (identity, None):
                await self.changed()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(another(), seconds)

    def _left(self) -> Gone:
        return Gone(f"{self._path.parent} was removed or moved")

    def _on_gone(self) -> None:
        # The inode is only for when events were dropped: the next directory may have the same one.
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
            pass  # its queue of connections is full: somebody listens
        except OSError:
            return None
    return identity if identity == identify(path) else None


async def directory(path: Path) -> None:
    """Waits until there is a directory at the path; the one above it must exist.

    Raises OSError if that cannot be watched.
    """
    created = asyncio.Event()
    with inotify.Watch() as watch:
        watch.add(path.parent, _CREATED, created.set, path.name)
        while not path.is_dir():
            await created.wait()
            created.clear()


def peer(path: Path) -> str | None:
    """Which process listens on a unix socket, in words; None if the socket is dead or absent."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0)
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
