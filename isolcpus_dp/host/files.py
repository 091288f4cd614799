"""Reads files of the kernel and of other programs, up to a limit.

A missing file counts as empty. A file that exists and cannot be read raises `Unseen`. Whether
another user may have written it is not checked here: see `trust`.
"""

from __future__ import annotations

import os
from pathlib import Path

# More than /proc/interrupts of the largest hosts. Any user can make some files in /proc grow.
_MOST_BYTES = 64 << 20


class Unseen(Exception):
    """Something cannot be read; the message is one sentence with the reason."""


def text(path: Path | str, most: int = _MOST_BYTES) -> str:
    """The text of a file, stripped; empty if the file is missing. Raises Unseen."""
    return raw(path, most).decode("utf-8", "replace").strip()


def lines(path: Path | str) -> list[str]:
    """The lines of a file; none if it is missing. Raises Unseen.

    Only a newline ends a line. str.splitlines() also splits at other characters, which the kernel
    allows in the names of processes, cgroups and sockets: users could write lines of their own.
    """
    content = text(path)
    return content.split("\n") if content else []


def raw(path: Path | str, most: int = _MOST_BYTES) -> bytes:
    """The bytes of a file; empty if the file is missing. Raises Unseen, also above `most` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return b""
    except OSError as error:
        raise unseen(path, error) from error
    # One report reads thousands of files; this is several times as fast as open().
    try:
        return read(path, descriptor, most)
    except ProcessLookupError:
        return b""
    except OSError as error:
        raise unseen(path, error) from error
    finally:
        os.close(descriptor)


def read(path: Path | str, descriptor: int, most: int) -> bytes:
    """The rest of an open file. Raises Unseen above `most` bytes, OSError."""
    parts, size = [], 0
    while part := os.read(descriptor, 65536):
        parts.append(part)
        size += len(part)
        if size > most:
            raise Unseen(f"{path} is not read: it has more than {size_text(most)}")
    return b"".join(parts)


def names(directory: Path | str) -> list[str]:
    """The sorted names in a directory; empty if the directory is missing. Raises Unseen."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 (text is faster: one call per process)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []
    except OSError as error:
        raise unseen(directory, error) from error


def printable(text: str) -> str:
    """The text with `?` for all that is not printable: it may contain what others wrote."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def unseen(path: Path | str, error: OSError) -> Unseen:
    """What to raise when a file cannot be read."""
    hint = ": run the command as root" if isinstance(error, PermissionError) else ""
    return Unseen(f"cannot read {path}: {error.strerror}{hint}")


def size_text(size: int) -> str:
    """A number of bytes as text."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
