"""Reads files of the kernel: the functions of `host.files`, and one that only checks need."""

from __future__ import annotations

from pathlib import Path

from isolcpus_dp.host.files import Unseen, lines, names, printable, raw, text

__all__ = ["Unseen", "lines", "names", "number", "printable", "raw", "text"]


def number(path: Path | str) -> int | None:
    """The integer in a file; None if the file holds no integer or is missing. Raises Unseen."""
    digits = text(path)
    return int(digits) if digits.lstrip("-").isdecimal() else None
