"""Writes the files of a plan below a directory, all of them or none, and removes earlier ones.

A file whose first line does not say that isolcpus-dp plan wrote it belongs to somebody else, and is
never touched. No symbolic link is followed that leads out of the directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from isolcpus_dp.plan.part import MARK

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import File

# What the first line of our files has in common, also of those of other versions.
_OURS = " ".join(MARK.split()[:4]).rstrip(",")
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755


class WriteError(Exception):
    """The files cannot be written, and none was, unless the message says so; one sentence."""


class Changes(NamedTuple):
    """What was changed below the directory."""

    written: list[Path]  # files that were new or differed
    removed: list[Path]  # files of an earlier plan


def write(files: Sequence[File], directory: Path, former: Iterable[PurePosixPath] = ()) -> Changes:
    """Writes the files; then removes those at the paths `former` that an earlier plan wrote.

    Raises WriteError.
    """
    if not directory.is_dir():
        raise WriteError(f"{directory} is not a directory: create it first")
    places = [(file, place(directory, file.path)) for file in files]
    changed = [(file, path) for file, path in places if content(path) != file.text]
    left = [found for path in former if (found := leftover(directory, path, files))]
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
    written = list(temporary)
    return Changes(written, _remove(left, written))


def leftover(directory: Path, path: PurePosixPath, files: Iterable[File]) -> Path | None:
    """Where a file is below the directory that an earlier plan wrote; None if there is none.

    A link, or a path that leads out of the directory, is nothing that a plan has written. Nor is it
    a file of an earlier plan if it is one of `files` by another name. Raises WriteError.
    """
    found = _inside(directory, path)
    mode = _mode(found) if found else None
    if not found or not mode or not stat.S_ISREG(mode) or not _is_ours(found):
        return None
    present = (_below(directory, file.path) for file in files)
    return None if any(_is_same(one, found) for one in present) else found


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _remove(left: Iterable[Path], written: Sequence[Path]) -> list[Path]:
    removed: list[Path] = []
    for path in left:
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            done = "all files are as planned"
            done += f"; wrote {_names(written)}" if written else ""
            done += f"; removed {_names(removed)}" if removed else ""
            raise WriteError(
                f"could not remove {path}, which is left from an earlier plan: {error.strerror};"
                f" {done}"
            ) from error
        removed.append(path)
    return removed


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def place(directory: Path, path: PurePosixPath) -> Path:
    """Where a file of the plan is below the directory. Raises WriteError if it cannot be there."""
    found = _inside(directory, path)
    if not found:
        raise WriteError(
            f"{_below(directory, path)} is not written: a symbolic link on its way leads out of"
            f" {directory}"
        )
    _require_ours(found)
    return found


def _below(directory: Path, path: PurePosixPath) -> Path:
    return directory / str(path).lstrip("/")


def _inside(directory: Path, path: PurePosixPath) -> Path | None:
    """The path below the directory; None if a symbolic link on its way leads out of it.

    Raises WriteError.
    """
    found = _below(directory, path)
    root = directory.resolve()
    try:
        resolved = found.parent.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        raise WriteError(f"cannot use {found}: {error}") from error
    is_inside = ".." not in path.parts and (resolved == root or root in resolved.parents)
    return found if is_inside else None


def content(path: Path) -> str | None:
    """The text of a file; None if there is none. Raises WriteError."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise WriteError(f"cannot read {path}: {error.strerror}") from error


def _is_ours(path: Path) -> bool:
    """Whether the first line says that a plan wrote the file. Raises WriteError."""
    return _OURS in (content(path) or "").partition("\n")[0]


def _mode(path: Path) -> int | None:
    """The mode of a file or link; None if there is none. Raises WriteError."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WriteError(f"cannot use {path}: {error.strerror}") from error


def _require_ours(path: Path) -> None:
    mode = _mode(path)
    if mode is None:
        return
    if not stat.S_ISREG(mode):
        raise WriteError(f"{path} exists and is no regular file: remove it first")
    if not _is_ours(path):
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
