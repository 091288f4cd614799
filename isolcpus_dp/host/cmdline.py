"""Splits the kernel's command line into its arguments. What they mean is not known here."""

from __future__ import annotations

import re

# Words are separated by white space outside of double quotes, which cannot be escaped.
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|\Z))+', re.ASCII)


def split(text: str) -> list[tuple[str, str]]:
    """The name and value of each argument for the kernel; the value is empty if there is none.

    As next_arg() in lib/cmdline.c; what follows `--` is for init (parse_args() in kernel/params.c).
    """
    found: list[tuple[str, str]] = []
    for word in _WORD.findall(text):
        name, equals, value = word.replace('"', "").partition("=")
        if name == "--" and not equals:
            break
        found.append((name, value))
    return found
