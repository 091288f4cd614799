"""Makes several texts or a directory of the bytes of one input, so that a corpus can be read."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_LONGEST_NAME = 64
_DEEPEST = 8


def parts(data: bytes, count: int) -> list[bytes]:
    """The parts of the input between lines that are `%%`; those that are missing are empty."""
    found = re.split(rb"(?:^|\n)%%(?:\n|$)", data, maxsplit=count - 1)
    return [*found, *[b""] * (count - len(found))]


def write_tree(root: Path, data: bytes) -> None:
    """Writes a small file for each line `PATH: TEXT`; other lines are ignored."""
    for line in data.split(b"\n"):
        name, colon, text = line.partition(b": ")
        if colon and _is_path(name):
            # A line may need a directory where another one has a file, and the reverse.
            with contextlib.suppress(FileExistsError, IsADirectoryError, NotADirectoryError):
                _write(root / name.decode("utf-8", "replace"), text + b"\n")


def _write(path: Path, text: bytes) -> None:
    try:
        path.write_bytes(text)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


def _is_path(name: bytes) -> bool:
    words = name.split(b"/")
    return (
        b"\0" not in name
        and len(words) <= _DEEPEST
        and all(word.strip(b".") and len(word) <= _LONGEST_NAME for word in words)
    )
