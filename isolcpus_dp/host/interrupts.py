"""Reads the tables of /proc/interrupts and /proc/softirqs.

The first line of both names CPUs, as `CPU0`; each further line has a name and a count for each of
them. Only online CPUs have a column in /proc/interrupts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# How often each interrupt has fired: by interrupt, then by CPU.
Counts = Mapping[str, Mapping[int, int]]

# What precedes the names of the drivers, if there are none: the number within the controller and
# the type of the trigger, as `5-edge`, `27 Level` or `-fasteoi` (show_interrupts() in
# kernel/irq/proc.c).
_NO_DRIVER = re.compile(r"(.*\s)?(\d+|\d*-\w+|Level|Edge)")


def parse(lines: Iterable[str]) -> Counts:
    """The counts by the name of the line, as `24`, `LOC` or `TIMER`, and by CPU.

    A line that has one count for all CPUs, as ERR and MIS, is left out.
    """
    cpus, rows = _split(lines)
    return {
        words[0].rstrip(":"): {
            cpu: int(word) for cpu, word in zip(cpus, words[1:]) if word.isdecimal()
        }
        for words in map(str.split, rows)
        if len(words) > len(cpus)
    }


def devices(lines: Iterable[str]) -> dict[str, str]:
    """By number of the interrupt, the names that drivers gave it: `{"4": "ttyS0"}`.

    Several names are separated as the kernel prints them: `i801_smbus, ehci_hcd:usb1`.
    """
    cpus, rows = _split(lines)
    found = {}
    for row in rows:
        words = row.split(maxsplit=len(cpus) + 1)
        if len(words) < len(cpus) + 2 or not words[0].rstrip(":").isdecimal():
            continue
        # Two spaces precede the names, which may have single spaces.
        name = re.split(r"\s{2,}", words[-1].rstrip())[-1]
        if not _NO_DRIVER.fullmatch(name):
            found[words[0].rstrip(":")] = name
    return found


def _split(lines: Iterable[str]) -> tuple[list[int], list[str]]:
    """The CPUs of the columns, and the lines below."""
    headline, *rows = list(lines) or [""]
    return [int(word[3:]) for word in headline.split() if word[3:].isdecimal()], rows
