"""Reads files of the kernel, the kubelet and the runtime.

A missing file counts as empty. A file that exists and cannot be read raises `Unseen`.
"""

from __future__ import annotations

import os
from pathlib import Path


class Unseen(Exception):
    """Something cannot be read; the message is one sentence with the reason."""


def text(path: Path | str) -> str:
    """The text of a file, stripped; empty if the file is missing. Raises Unseen."""
    return raw(path).decode("utf-8", "replace").strip()


def raw(path: Path | str) -> bytes:
    """The bytes of a file; empty if the file is missing. Raises Unseen."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return b""
    except OSError as error:
        raise Unseen(_sentence(path, error)) from error
    # One report reads thousands of files; this is several times as fast as open().
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


def names(directory: Path | str) -> list[str]:
    """The sorted names in a directory; empty if the directory is missing. Raises Unseen."""
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 (text is faster: one call per process)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []
    except OSError as error:
        raise Unseen(_sentence(directory, error)) from error


def number(path: Path | str) -> int | None:
    """The integer in a file; None if the file holds no integer or is missing. Raises Unseen."""
    digits = text(path)
    return int(digits) if digits.lstrip("-").isdecimal() else None


def printable(text: str) -> str:
    """The text with `?` for all that is not printable: it may contain what others wrote."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _sentence(path: Path | str, error: OSError) -> str:
    hint = ": run the check as root" if isinstance(error, PermissionError) else ""
    return f"cannot read {path}: {error.strerror}{hint}"
