"""Unix sockets of other processes: their identity, who listens on them, and waiting for that."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from isolcpus_dp.host import inotify
from isolcpus_dp.host.directories import DirectoryWatch

# Between bind(), which inotify reports, and listen(), which it does not, a new socket refuses
# connections. The delay of the next attempt, in seconds, begins with the first number and doubles.
_FIRST_DELAY, _LONGEST_DELAY = 0.001, 10.0
# When the next delay would be longer, a socket on which no process listens counts as dead: 4 s
# after the first attempt.
_LONGEST_DELAY_TO_LISTEN = 2.5

# sun_path of unix(7), less its final zero byte.
_LONGEST_PATH = 107

# The errors of a socket that is absent, or on which no process listens yet or any more.
_UNUSED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED})

# The errors of a host on which descriptors or memory are used up: they say nothing about a socket.
USED_UP = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_CREATED = inotify.IN_CREATE | inotify.IN_MOVED_TO


class Gone(Exception):
    """The directory of a socket was removed, moved or replaced; the message is one sentence."""


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
    """Watches another process's socket and the way to it. A context manager.

    Only one coroutine may wait at a time. Leaving it takes 10 ms (see inotify.Watch), so do not
    leave it while a peer waits for an answer.
    """

    def __init__(self, path: Path, on_obstacle: Callable[[str], None] = lambda _: None) -> None:
        """`on_obstacle` is called with the reason why nobody can connect, once for each reason.

        Waiting goes on: the obstacle may be removed.
        """
        self._path = path
        self._on_obstacle = on_obstacle
        self._obstacle = ""
        self._watch = inotify.Watch()
        self._way = DirectoryWatch(path.parent, self._watch)
        self._created = False
        self._delay = _FIRST_DELAY
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> SocketWatch:
        """Raises Gone if the directory is absent, OSError if inotify's limits are used up."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._watch)
            stack.enter_context(self._way)
            try:
                self._watch.add(self._path.parent, _CREATED, self._on_created, self._path.name)
            except (FileNotFoundError, NotADirectoryError):
                raise self._gone() from None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    async def changed(self, seconds: float | None = None) -> bool:
        """Waits at most so long for the socket to be created; returns whether it was.

        A socket created since the last call counts. Raises Gone if another directory, or none, is
        at the path of the socket's directory.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._way.changed.wait(), seconds)
        self._way.changed.clear()
        if self._way.replaced:
            raise self._gone()
        created, self._created = self._created, False
        if created:
            self._delay = _FIRST_DELAY
        return created

    async def next_attempt(self) -> None:
        """Waits until it makes sense to connect again.

        That is when the socket is created, and several times in the 4 s after that, as its owner
        may not have called listen() yet. Raises Gone, as `changed` does.
        """
        self._report(obstacle(self._path))
        delay = self._next_delay()
        await self.changed(None if delay > _LONGEST_DELAY_TO_LISTEN else delay)

    async def listener(self, failed: Identity | None = None) -> Identity:
        """Waits until it makes sense to call the owner of the socket; the socket's identity.

        A socket that is created while this waits is returned at once, although its owner may not
        have called listen() yet; otherwise a process listens on it. `failed` is the identity of a
        socket whose owner was called but did not answer: it is returned again only after a delay,
        which doubles with each call. Raises Gone, as `changed` does, and OSError if descriptors are
        used up.
        """
        if failed and self._delay > _LONGEST_DELAY_TO_LISTEN:
            self._report(f"the process that listens on {self._path} does not answer")
        created = bool(failed) and await self.changed(self._next_delay())
        while True:
            identity = identify(self._path)
            if identity is not None and ((created and self._path.is_socket()) or self._answers()):
                return identity
            delay = self._next_delay()
            created = await self.changed(None if delay > _LONGEST_DELAY_TO_LISTEN else delay)

    def _answers(self) -> bool:
        """Whether a process listens on the socket; reports any other reason why none does.

        Raises OSError if descriptors are used up.
        """
        try:
            _connect(self._path)
        except OSError as error:
            if error.errno in USED_UP:
                raise
            self._report(obstacle(self._path) or _unusual(self._path, error))
            return False
        return True

    def _report(self, reason: str) -> None:
        if reason and reason != self._obstacle:
            self._on_obstacle(reason)
        self._obstacle = reason

    def _next_delay(self) -> float:
        delay = self._delay
        self._delay = min(2 * delay, _LONGEST_DELAY)
        return delay

    async def replaced(self, identity: Identity | None, seconds: float | None = None) -> None:
        """Waits for a socket of another identity, at most so long.

        The event alone is not enough: inotify may report a socket after a connection to its owner
        was made. Raises Gone, as `changed` does.
        """

        async def another() -> None:
            while identify(self._path) in (identity, None):
                await self.changed()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(another(), seconds)

    def _on_created(self) -> None:
        self._created = True
        self._way.changed.set()

    def _gone(self) -> Gone:
        return Gone(f"{self._path.parent} was removed, moved or replaced")


def _connect(path: Path) -> None:
    """Connects, and closes the connection. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0)
        # If the queue of connections is full, a process listens.
        with contextlib.suppress(BlockingIOError):
            connection.connect(str(path))


def obstacle(path: Path) -> str:
    """Why no process can listen on this socket, or none can connect, in a sentence with advice.

    Empty if there is no such reason, also if the socket is absent.
    """
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return f"{path} is longer than the {_LONGEST_PATH} bytes that a socket's path may have"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _unusual(path, error)
    if stat.S_ISDIR(mode):
        # Docker and others create one for a volume whose path is absent.
        return f"{path} is a directory, not a socket: remove it (rmdir {path})"
    if not stat.S_ISSOCK(mode):
        return f"{path} is a file, not a socket: remove it, or use another path"
    if not os.access(path, os.W_OK):
        return f"cannot connect to {path}: {os.strerror(errno.EACCES)}"
    return ""


def _unusual(path: Path, error: OSError) -> str:
    """What is wrong with a socket; empty if it is only unused."""
    return "" if error.errno in _UNUSED else f"cannot connect to {path}: {error.strerror or error}"


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
        pid = _listener(connection)
    try:
        return f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return f"process {pid}"


def listener(path: Path) -> int | None:
    """The PID of the process that listens on a unix socket; None if that cannot be seen."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0)
        try:
            connection.connect(str(path))
        except OSError:
            return None
        return _listener(connection)


def _listener(connection: socket.socket) -> int:
    """The PID of the process that called listen(): unix(7), SO_PEERCRED."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
