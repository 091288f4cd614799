"""The positions of the legend's entries in the picture file: states, then owners by resource.

Geometry only, in pixels from the legend's corner.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.report.map import text

if TYPE_CHECKING:
    from isolcpus_dp.report.map.model import Mark

ENTRY_WIDTH = 290  # at least; a name of 34 characters is one line
GAP = 16  # between columns
KEY_GAP = 9  # from the box with a mark's label to its text
_ENTRY_GAP = 9
# A CPU list with more lines than this gets the full width of the legend.
_MOST_LINES = 2


@dataclass(frozen=True)
class Entry:
    """A mark with its lines of text: its meaning and its CPUs."""

    x: int
    y: int
    mark: Mark
    names: tuple[str, ...]
    cpus: tuple[str, ...]

    @property
    def height(self) -> int:
        return text.LINE * (len(self.names) + len(self.cpus))


@dataclass(frozen=True)
class Heading:
    """The name of the resource of the owners below it."""

    y: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Legend:
    width: int
    height: int
    key_width: int  # of the box with a mark's label
    headings: tuple[Heading, ...]
    entries: tuple[Entry, ...]


def width(columns: int) -> int:
    """The minimum width of a legend with this number of columns."""
    return columns * (ENTRY_WIDTH + GAP) - GAP


@functools.lru_cache
def arrange(marks: tuple[Mark, ...], columns: int, room: int) -> Legend:
    """The marks from left to right and from top to bottom."""
    groups: dict[str, list[Mark]] = {}
    for mark in marks:
        groups.setdefault(mark.resource, []).append(mark)
    key_width = text.width(max(len(mark.label) for mark in marks)) + 12
    headings: list[Heading] = []
    entries: list[Entry] = []
    top = 0
    for resource, group in groups.items():
        if resource:
            headings.append(Heading(top, text.lines(resource, room, "/-.")))
            top += text.LINE * len(headings[-1].lines) + 4
        for row in _rows(group, columns, room, key_width):
            entries += (replace(entry, y=top) for entry in row)
            top += max(entry.height for entry in row) + _ENTRY_GAP
    return Legend(room, top - _ENTRY_GAP, key_width, tuple(headings), tuple(entries))


def _rows(marks: Iterable[Mark], columns: int, room: int, key_width: int) -> Iterable[list[Entry]]:
    step = (room + GAP) // columns
    row: list[Entry] = []
    for mark in marks:
        entry = _entry(mark, len(row) * step, step - GAP - key_width - KEY_GAP)
        if len(entry.cpus) > _MOST_LINES and columns > 1:
            yield from filter(None, (row, [_entry(mark, 0, room - key_width - KEY_GAP)]))
            row = []
            continue
        row.append(entry)
        if len(row) == columns:
            yield row
            row = []
    if row:
        yield row


def _entry(mark: Mark, x: int, room: int) -> Entry:
    count = f"{len(mark.cpus)} CPU{'s' if len(mark.cpus) != 1 else ''}"
    names = text.lines(mark.what, room, "/-. ")
    return Entry(x, 0, mark, names, text.lines(f"{count}: {cpulist.render(mark.cpus)}", room, ", "))
