"""Reads files that only root can change: configurations, and what other daemons have stored.

A command of root must not trust what another user wrote. The owner and the permissions of the
file are checked, and those of every directory on the way to it: who can write a directory can
replace what is in it. For another user, files of that user are trusted as well.

Not for /proc and /sys: the kernel itself writes those files.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from isolcpus_dp.host import files
from isolcpus_dp.host.files import Unseen

MOST_BYTES = 1 << 20  # the largest file that is read
MOST_NAMES = 1000  # the most files that are read from a directory
_MOST_LINKS = 40  # as in the kernel


def text(path: Path) -> str:
    """The text of a file, stripped; empty if the file is missing.

    Raises Unseen if it is not trusted, not a regular file, or too large.
    """
    try:
        # Without waiting for the writer of a pipe, should it become one.
        descriptor = os.open(
            _resolved(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise files.unseen(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unseen(f"{path} is not a regular file")
        return files.read(path, descriptor, MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        raise files.unseen(path, error) from error
    finally:
        os.close(descriptor)


def names(directory: Path) -> list[str]:
    """The sorted names in a directory; empty if it is missing.

    Raises Unseen if it is not trusted, or if it has too many names.
    """
    try:
        found = files.names(_resolved(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise files.unseen(directory, error) from error
    if len(found) > MOST_NAMES:
        raise Unseen(f"{directory} is not read: it has more than {MOST_NAMES} names")
    return found


def require(path: Path) -> None:
    """Raises Unseen if another user can change the file or directory, or OSError."""
    _resolved(path)


def _resolved(path: Path) -> Path:
    """The path without links. Raises Unseen if it is not trusted, and OSError."""
    done, sticky, links = Path("/"), False, 0
    pending = list(reversed(path.absolute().parts[1:]))
    while pending:
        name = pending.pop()
        if name == "..":
            done, sticky = done.parent, False
            continue
        entry = done / name
        status = entry.lstat()
        if sticky and not stat.S_ISDIR(status.st_mode):
            # Another user may have made it, if only as a hard link to a file of root.
            raise Unseen(
                f"{path} is not trusted: all users can create files in {done}; move it to a"
                " directory that only root can write"
            )
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = entry.readlink()
            if target.is_absolute():
                done, sticky = Path("/"), False
            pending += reversed([part for part in target.parts if part != "/"])
            continue
        sticky = _is_sticky(path, entry, status)
        done = entry
    return done


def _is_sticky(path: Path, entry: Path, status: os.stat_result) -> bool:
    """Whether others can create, but not replace, names in this directory. Raises Unseen."""
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise Unseen(f"{path} is not a regular file")
    if status.st_uid not in (0, os.geteuid()):
        raise Unseen(
            f"{path} is not trusted: {entry} belongs to user {status.st_uid}; run chown root"
            f" {entry}"
        )
    if not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return True
    raise Unseen(
        f"{path} is not trusted: users other than root can write {entry}; run chmod go-w {entry}"
    )
