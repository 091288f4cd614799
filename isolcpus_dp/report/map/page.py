"""The positions of the parts of the picture file: heading, machine, legend, missing data.

Geometry only, in pixels.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.report.map import layout, legend, model, text

if TYPE_CHECKING:
    from isolcpus_dp.report.map.layout import Box
    from isolcpus_dp.report.map.legend import Legend
    from isolcpus_dp.report.map.model import Mark
    from isolcpus_dp.report.snapshot import Snapshot

MARGIN = 16  # from the edge of the page
_GAP = 16
_MOST_COLUMNS = 5  # of the legend
_SHAPE = 1.5  # the preferred ratio of width to height
_WIDTH = 1100  # a page should not be much wider, so that it can be read without scaling


@dataclass(frozen=True)
class Page:
    """The parts with the positions of their corners, and the lines of text."""

    width: int
    height: int
    heading: tuple[str, ...]
    machine: tuple[int, int, Box]
    legend: tuple[int, int, Legend]
    unseen: tuple[str, ...]
    unseen_y: int


def compose(seen: Snapshot, marks: tuple[Mark, ...]) -> Page:
    """The page with the best shape of several arrangements."""
    label = max(len(mark.label) for mark in marks)
    digits = len(str(max(seen.machine.present)))
    thread_width = text.width(label + 1 + digits) + 8
    machines = layout.arrangements(model.packages(seen.machine), thread_width)
    pages = (
        _page(seen, marks, machine, columns, beside=beside)
        for machine, columns, beside in itertools.product(
            machines, range(1, _MOST_COLUMNS + 1), (False, True)
        )
    )
    return min(pages, key=_cost)


def _page(
    seen: Snapshot, marks: tuple[Mark, ...], machine: Box, columns: int, *, beside: bool
) -> Page:
    """A page with the legend beside the machine or below it, in this number of columns."""
    room = legend.width(columns)
    width = machine.width + _GAP + room if beside else max(machine.width, room)
    heading = text.lines(summary(seen), width, " ", text.HEADING_SIZE)
    top = MARGIN + text.LINE * len(heading) + 8
    machine_end = top + machine.height
    if beside:
        x, y = MARGIN + machine.width + _GAP, top
    else:
        x, y, room = MARGIN, machine_end + _GAP, width
    arranged = legend.arrange(marks, columns, room)
    end = max(machine_end, y + arranged.height)
    unseen = [
        line
        for sentence in seen.unseen
        for line in text.lines(text.clean(f"not seen: {sentence}"), width, " /")
    ]
    return Page(
        width=width + 2 * MARGIN,
        height=end + (_GAP + text.LINE * len(unseen) if unseen else 0) + MARGIN,
        heading=heading,
        machine=(MARGIN, top, machine),
        legend=(x, y, arranged),
        unseen=tuple(unseen),
        unseen_y=end + _GAP,
    )


def _cost(page: Page) -> float:
    """How far the page is from the preferred shape and width. Smaller pages cost less."""
    unlike = abs(math.log(page.width / page.height / _SHAPE))
    size = math.log(page.width * page.height)
    # Rounded, because the last digit of a logarithm differs between platforms.
    return round(unlike + size + 2 * max(0, page.width / _WIDTH - 1), 6)


def summary(seen: Snapshot) -> str:
    """The numbers of CPUs, packages and NUMA nodes, and of CPUs by state, as one line."""
    machine = seen.machine
    packages = {cpu.package for cpu in machine.cpus.values()} - {None}
    nodes = {cpu.node for cpu in machine.cpus.values()} - {None}
    counts = ((packages, "package"), (nodes, "NUMA node"))
    places = [_count(len(numbers), noun) for numbers, noun in counts if numbers]
    states = [f"{len(machine.present & machine.isolated)} isolated"]
    if not seen.unseen:
        owned = frozenset[int]().union(*(owner.cpus for owner in seen.owners))
        states.append(f"{len(owned)} owned")
    if machine.present - machine.online:
        states.append(f"{len(machine.present - machine.online)} offline")
    present = [_count(len(machine.present), "CPU"), *places]
    return f"{', '.join(present)}: {', '.join(states)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
