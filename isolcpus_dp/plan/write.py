"""Writes the files of a plan below a directory, all of them or none.

A file whose first line does not say that isolcpus-dp plan wrote it belongs to somebody else, and is
never touched. No symbolic link is followed that leads out of the directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.plan.part import MARK

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import File

# What the first line of our files has in common, also of those of other versions.
_OURS = " ".join(MARK.split()[:4]).rstrip(",")
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755


class WriteError(Exception):
    """The files cannot be written, and none was; one sentence."""


def write(files: Sequence[File], directory: Path) -> list[Path]:
    """Writes the files, and returns the paths of those that were new or differed.

    Raises WriteError.
    """
    if not directory.is_dir():
        raise WriteError(f"{directory} is not a directory: create it first")
    places = [(file, place(directory, file.path)) for file in files]
    changed = [(file, path) for file, path in places if content(path) != file.text]
    temporary: dict[Path, Path] = {}
    try:
        for file, path in changed:
            _create_directories(path.parent)
            temporary[path] = path.with_name(f".{path.name}.isolcpus-dp-{os.getpid()}")
            _store(temporary[path], file.text)
        for path, new in temporary.items():
            new.replace(path)
    except OSError as error:
        for new in temporary.values():
            with contextlib.suppress(OSError):
                new.unlink()
        name = error.filename or directory
        raise WriteError(f"could not write {name}: {error.strerror}") from error
    return list(temporary)


def place(directory: Path, path: PurePosixPath) -> Path:
    """Where a file of the plan is below the directory. Raises WriteError if it cannot be there."""
    found = directory / str(path).lstrip("/")
    root = directory.resolve()
    resolved = found.parent.resolve()
    if ".." in path.parts or (resolved != root and root not in resolved.parents):
        raise WriteError(
            f"{found} is not written: a symbolic link on its way leads out of {directory}"
        )
    _require_ours(found)
    return found


def content(path: Path) -> str | None:
    """The text of a file; None if there is none. Raises WriteError."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WriteError(f"cannot read {path}: {error.strerror}") from error


def _require_ours(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise WriteError(f"cannot use {path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise WriteError(f"{path} exists and is no regular file: remove it first")
    if _OURS not in (content(path) or "").partition("\n")[0]:
        raise WriteError(
            f"{path} exists and was not written by isolcpus-dp plan, so it is not replaced: move it"
            " away first; nothing was written"
        )


def _create_directories(directory: Path) -> None:
    """As mkdir -p, with the usual mode whatever the umask is. Raises OSError."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir()
        one.chmod(_DIRECTORY_MODE)


def _store(path: Path, text: str) -> None:
    """Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), _FILE_MODE)
        os.fsync(file.fileno())
