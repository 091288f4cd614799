"""Reads what the kernel, the kubelet and the runtime tell in files.

What is not there is nothing; what may not be read is `Unseen`, which is not the same.
"""

from __future__ import annotations

import os
from pathlib import Path


class Unseen(Exception):
    """Something may not be looked at; one sentence says what, and why."""


def text(path: Path | str) -> str:
    """What a file says, without white space at its ends; nothing if it is not there.

    Raises Unseen.
    """
    return raw(path).decode("utf-8", "replace").strip()


def raw(path: Path | str) -> bytes:
    """The bytes of a file; none if it is not there. Raises Unseen."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return b""
    except OSError as error:
        raise Unseen(_sentence(path, error)) from error
    # Thousands are read for one report: this is several times as fast as open().
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except ProcessLookupError:
        return b""
    except OSError as error:
        raise Unseen(_sentence(path, error)) from error
    finally:
        os.close(descriptor)
    return b"".join(parts)


def names(folder: Path | str) -> list[str]:
    """The names in a folder, sorted; none if it is not there. Raises Unseen."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (as text: one folder per process)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []
    except OSError as error:
        raise Unseen(_sentence(folder, error)) from error


def number(path: Path | str) -> int | None:
    """The number in a file; None if there is none. Raises Unseen."""
    said = text(path)
    return int(said) if said.lstrip("-").isdecimal() else None


def printable(text: str) -> str:
    """A text in which others had a say, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _sentence(path: Path | str, error: OSError) -> str:
    hint = ": try it as root" if isinstance(error, PermissionError) else ""
    return f"{path} cannot be read: {error.strerror}{hint}"
