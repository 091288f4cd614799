"""Lines of text that fit a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

NARROWEST, WIDEST = 60, 120


def wrapped(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    """Lines that begin with `first`, and with `rest` after the first one.

    Words that are longer than a line, such as paths, are not broken.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first) if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def width_of_stdout() -> int:
    return min(max(shutil.get_terminal_size((80, 24)).columns, NARROWEST), WIDEST)


def is_colourful() -> bool:
    """Whether standard output is a terminal, and NO_COLOR (no-color.org) is not set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def microseconds(value: float) -> str:
    """`12` or `2.5`"""
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"
