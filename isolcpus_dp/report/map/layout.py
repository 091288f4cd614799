"""The positions of a machine's parts in the picture file: nested boxes, sizes in pixels.

Geometry only: `svg` decides how a box looks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from isolcpus_dp.report.map import model, text

if TYPE_CHECKING:
    from isolcpus_dp.report.map.model import Node, Package, Part

# Boxes of the kinds "machine" and "cores" are only groups; nothing is drawn for them.
Kind = Literal["machine", "package", "node", "cache", "unplaced", "cores", "core", "thread"]

THREAD_HEIGHT = 20
HEADING_HEIGHT = 18
PADDING = 7  # from the edge of a box to its contents
_GAP = 7  # between the boxes in a box
_CORE_PADDING, _CORE_GAP, _THREAD_GAP = 3, 5, 3
_MOST_THREADS_IN_A_COLUMN = 4
_MOST_COLUMNS = 4  # of packages, in arrangements with a fixed number of columns
_FLAT = 8.0  # width to height of the box below all others
# Width to height of other boxes' contents; the shape of the whole page decides which one is used.
_SHAPES = (1.5, 2.2, 3.2, 4.5)


@dataclass(frozen=True)
class Box:
    """A part of the machine. `inside` has x, y relative to its corner, and box of each part."""

    kind: Kind
    heading: str
    cpus: tuple[int, ...]  # ascending
    width: int
    height: int
    inside: tuple[tuple[int, int, Box], ...] = ()


def arrangements(packages: Sequence[Package], thread_width: int) -> Iterator[Box]:
    """The machine in several shapes, to choose from."""
    for shape in _SHAPES:
        boxes = [_package(package, thread_width, shape) for package in packages]
        yield _box("machine", "", _arranged([boxes], shape, ""))
        for columns in range(1, min(len(boxes), _MOST_COLUMNS) + 1):
            yield _box("machine", "", _rows([boxes], columns))


def _package(package: Package, thread_width: int, shape: float) -> Box:
    boxes = [box for node in package.nodes for box in _node(node, thread_width, shape)]
    return _box("package", package.heading, _arranged(_kinds(boxes), shape, package.heading))


def _node(node: Node, thread_width: int, shape: float) -> list[Box]:
    """The box of a NUMA node; on a host without NUMA, the boxes of its parts."""
    boxes = [_part(part, thread_width, shape) for part in node.parts]
    if not node.heading:
        return boxes
    return [_box("node", node.heading, _arranged(_kinds(boxes), shape, node.heading))]


def _part(part: Part, thread_width: int, shape: float) -> Box:
    cores = [_core(threads, thread_width) for threads in part.cores]
    if part.heading == model.CORE_NOT_KNOWN:
        return _box("unplaced", part.heading, _arranged([cores], _FLAT, part.heading))
    kind: Kind = "cache" if part.heading else "cores"
    return _box(kind, part.heading, _arranged(_runs(cores), shape, part.heading))


def _kinds(boxes: list[Box]) -> list[list[Box]]:
    """Splits the boxes into runs of one kind. Each run begins a new row."""
    return [list(alike) for _, alike in itertools.groupby(boxes, key=lambda box: box.kind)]


def _core(cpus: tuple[int, ...], thread_width: int) -> Box:
    threads = [Box("thread", "", (cpu,), thread_width, THREAD_HEIGHT) for cpu in cpus]
    columns = math.ceil(len(threads) / _MOST_THREADS_IN_A_COLUMN)
    return _box("core", "", _rows([threads], columns))


def _runs(cores: list[Box]) -> list[list[Box]]:
    """The cores in groups, each of which begins a new row.

    On a hybrid machine, a group has the cores with the same number of threads. Single cores that
    lack a thread are not separated.
    """
    runs = [list(run) for _, run in itertools.groupby(cores, key=lambda core: len(core.cpus))]
    kinds = {len(core.cpus) for core in cores}
    hybrid = len(runs) == len(kinds) and all(len(run) > 1 for run in runs)
    return runs if hybrid else [cores]


def _arranged(runs: list[list[Box]], shape: float, heading: str) -> list[list[Box]]:
    """The boxes in rows that have about this shape and few empty places."""
    heading_width = text.heading_width(heading)
    widest = max(box.width for run in runs for box in run)
    heights = [max(box.height for box in run) for run in runs]

    def cost(columns: int) -> float:
        rows = [math.ceil(len(run) / columns) for run in runs]
        height = sum(number * height for number, height in zip(rows, heights))
        places = columns * sum(rows)
        empty = places - sum(map(len, runs))
        width = max(columns * widest, heading_width)
        unlike = abs(math.log(width / height / shape))
        # Rounded, because the last digit of a logarithm differs between platforms.
        return round(unlike + 0.5 * (empty > 0) + 2 * empty / places, 6)

    return _rows(runs, min(range(1, max(map(len, runs)) + 1), key=cost))


def _rows(runs: Iterable[Sequence[Box]], columns: int) -> list[list[Box]]:
    return [
        list(run[start : start + columns]) for run in runs for start in range(0, len(run), columns)
    ]


def _box(kind: Kind, heading: str, rows: list[list[Box]]) -> Box:
    """A box around rows of boxes. The boxes grow to fill the row and column, except cores."""
    frame, gap = _spacing(kind)
    top = frame + (HEADING_HEIGHT if heading else 0)
    columns = list(itertools.zip_longest(*rows))
    widths = [max(box.width for box in column if box) for column in columns]
    heights = [max(box.height for box in row) for row in rows]
    lefts = list(itertools.accumulate((width + gap for width in widths), initial=frame))
    tops = list(itertools.accumulate((height + gap for height in heights), initial=top))
    inside = tuple(
        (left, above, box if box.kind == "core" else replace(box, width=width, height=height))
        for above, height, row in zip(tops, heights, rows)
        for left, width, box in zip(lefts, widths, row)
    )
    return Box(
        kind,
        heading,
        tuple(sorted(cpu for row in rows for box in row for cpu in box.cpus)),
        max(lefts[-1] - gap + frame, text.heading_width(heading) + 2 * frame),
        tops[-1] - gap + frame,
        inside,
    )


def _spacing(kind: Kind) -> tuple[int, int]:
    """The distance from the edge of a box to its contents, and between the contents."""
    if kind == "core":
        return _CORE_PADDING, _THREAD_GAP
    if kind == "cores":
        return 0, _CORE_GAP
    if kind == "machine":
        return 0, 2 * _GAP
    return PADDING, _CORE_GAP if kind in ("cache", "unplaced") else _GAP
