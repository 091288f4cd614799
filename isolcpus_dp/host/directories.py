"""Directories of other programs: waits until one exists, and notices when another takes its place.

A directory can be created, removed, moved, replaced by a symbolic link, or hidden by a file system
that is mounted at any part of its path. All of these are noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from isolcpus_dp.host import inotify, mounts

_CHANGED = inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO

# The kernel's limit when it follows a path (path_resolution(7)).
_MOST_LINKS = 40


# What ProtectHome= of a unit hides (systemd.exec(5)).
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))


class Hidden(OSError):
    """A directory is hidden by the unit's sandbox; the message is one sentence."""


class Identity(NamedTuple):
    """Distinguishes a directory from another one that exists at the same time."""

    device: int
    inode: int


def identify(path: Path) -> Identity | None:
    """The identity of the directory at the path, links followed; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Identity(status.st_dev, status.st_ino)


class DirectoryWatch:
    """Notices when the path of a directory leads somewhere else. A context manager.

    `changed` is then set, and so is `replaced` if another directory, or none, is at the path. A
    change may have been made before the watch was set up: check the path after entering.
    """

    def __init__(self, path: Path, watch: inotify.Watch) -> None:
        """`watch` must have been entered."""
        self.changed = asyncio.Event()
        self.replaced = False
        self._path = path
        self._watch = watch
        self._identity: Identity | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> DirectoryWatch:
        """Raises OSError if watches or descriptors are used up."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(mounts.watch(self._compare))
            for parent, entry in _steps(self._path):
                try:
                    self._watch.add(parent, _CHANGED, self._entry_changed, entry)
                except (FileNotFoundError, NotADirectoryError):
                    break
                except PermissionError:
                    continue  # a user's own simulation; root may read every directory
            self._identity = identify(self._path)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _entry_changed(self) -> None:
        if self._watch.guesses:
            self._compare()
            return
        # Not compared: the new directory may have the inode number of the old one.
        self.replaced = True
        self.changed.set()

    def _compare(self) -> None:
        if identify(self._path) != self._identity:
            self.replaced = True
            self.changed.set()


async def present(path: Path) -> None:
    """Waits until there is a directory at the path, whichever part of the path is missing.

    Raises OSError if inotify's limits or descriptors are used up.
    """
    while not path.is_dir():
        with inotify.Watch() as watch, DirectoryWatch(path, watch) as way:
            if not path.is_dir():
                await way.changed.wait()


def require_visible(path: Path, homes: Iterable[Path] = _HOMES) -> None:
    """Raises Hidden if the path leads to where the unit's ProtectHome= hides all files.

    To this process a hidden directory looks like one that is absent or that it may not enter.
    """
    # On some distributions /home and /root are links.
    hiding = {real: home for home in homes for real in (home, Path(os.path.realpath(home)))}
    link, target = None, path
    for parent, name in _steps(path):
        entry = parent / name
        home = next((home for real, home in hiding.items() if entry.is_relative_to(real)), None)
        if home and _is_inaccessible(home):
            what = f"{link} is a link to {target}" if link else f"{path} is in {home}"
            raise Hidden(
                f"{what}, which ProtectHome= of the unit hides: set ProtectHome=no in [Service] of"
                f" a drop-in (systemctl edit isolcpus-dp) and restart it, or move the directory"
                f" out of {home}"
            )
        with contextlib.suppress(OSError):
            target, link = entry.readlink(), entry


def _is_inaccessible(directory: Path) -> bool:
    """Whether systemd has mounted its empty directory there, which has no permissions at all."""
    try:
        return stat.S_IMODE(directory.stat().st_mode) == 0
    except OSError:
        return False


def _steps(path: Path) -> Iterator[tuple[Path, str]]:
    """The directory entries that lead to a path, links followed: directory and name.

    Each entry is read only after it was yielded, so that the caller can watch it first.
    """
    pending, here, links = list(reversed(path.absolute().parts[1:])), Path("/"), 0
    while pending and links <= _MOST_LINKS:
        name = pending.pop()
        if name == "..":
            here = here.parent
            continue
        yield here, name
        try:
            target = (here / name).readlink()
        except OSError:  # not a link, or absent
            here /= name
            continue
        links += 1
        if target.is_absolute():
            here = Path("/")
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)
