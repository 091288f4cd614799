"""Draws how figures grow with CPUs, containers and pools, as an SVG document. A pure function.

One plot for each dimension and unit, with logarithmic axes. The file is self-contained: no script,
no style sheet, no embedded font. The background is always light.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.figures.figure import Figure

_MARGIN, _GAP = 16, 20  # around the page, between plots
_WIDTH, _HEIGHT = 340, 200  # of the axes
_LEFT, _TOP, _LINE = 44, 28, 17  # room for labels and title, height of a line of the legend
_COLUMNS = 2
_SHORT = 50  # from the lowest to the highest value of an axis with more labels

# They differ for people with any kind of colour blindness; the dashes differ also in grey.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
_DASHES = ("none", "6 3", "2 3", "8 3 2 3")
_TEXT, _FAINT_TEXT, _GRID, _AXIS = "#1f2328", "#57606a", "#e4e8ec", "#8c959f"

Line = Mapping[int, float]  # the median by size


@dataclass(frozen=True)
class Plot:
    """The lines of one plot, by name."""

    dimension: str
    unit: str
    lines: Mapping[str, Line]


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis between two numbers, with a length in pixels."""

    lowest: float
    highest: float
    length: int

    def place(self, value: float) -> float:
        """Where a value is, in pixels from the beginning of the axis."""
        whole = math.log(self.highest / self.lowest)
        return round(self.length * math.log(value / self.lowest) / whole, 1)

    def labels(self) -> list[float]:
        """The powers of ten on the axis, and its ends; on a short axis also 2 and 5 times them."""
        factors = (1, 2, 5) if self.highest / self.lowest <= _SHORT else (1,)
        first, last = (math.floor(math.log10(end)) for end in (self.lowest, self.highest))
        steps = {
            float(f"{factor}e{exponent}")
            for exponent in range(first, last + 1)
            for factor in factors
        }
        ends = {self.lowest, self.highest}
        return sorted({step for step in steps if self.lowest < step < self.highest} | ends)


def draw(figures: Iterable[Figure]) -> str:
    """The picture as an SVG document. The same figures give the same text."""
    found = plots(figures)
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    _add(root, "title", "How figures grow")
    panel = _add(root, "rect", fill="#ffffff", stroke=_AXIS, rx=6)
    page = _add(root, "g", fill=_TEXT, **{"font-family": "monospace", "font-size": 12})
    y = _MARGIN
    for first in range(0, len(found), _COLUMNS):
        row = found[first : first + _COLUMNS]
        for column, plot in enumerate(row):
            _draw_plot(page, plot, _MARGIN + column * (_LEFT + _WIDTH + _GAP), y)
        y += _TOP + _HEIGHT + 44 + _LINE * max(len(plot.lines) for plot in row) + _GAP
    size = {"width": 2 * _MARGIN + _COLUMNS * (_LEFT + _WIDTH + _GAP), "height": y}
    for element in (root, panel):
        element.attrib.update({name: str(length) for name, length in size.items()})
    root.set("viewBox", f"0 0 {size['width']} {size['height']}")
    ET.indent(root, " ")
    return f"{ET.tostring(root, encoding='unicode')}\n"


def plots(figures: Iterable[Figure]) -> list[Plot]:
    """A plot for each dimension and unit, in the order of the figures.

    A value of 0 has no place on a logarithmic axis and is left out.
    """
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for one in figures:
        if one.growth and one.median > 0:
            lines = found.setdefault((one.growth.dimension, one.unit), {})
            lines.setdefault(one.name, {})[one.growth.size] = one.median
    return [Plot(dimension, unit, lines) for (dimension, unit), lines in found.items()]


def axis(values: Sequence[float], length: int) -> Axis:
    """The axis on which all values have a place; it ends at 1, 2 or 5 times a power of ten."""
    lowest, highest = _step(min(values), up=False), _step(max(values), up=True)
    return Axis(lowest, highest if highest > lowest else 2 * lowest, length)


def _step(value: float, *, up: bool) -> float:
    """The nearest 1, 2 or 5 times a power of ten that is not above the value, or not below it."""
    exponent = math.floor(math.log10(value))
    steps = [float(f"{factor}e{exponent}") for factor in (1, 2, 5, 10)]
    if up:
        return next(step for step in steps if step >= value * (1 - 1e-9))
    return next(step for step in reversed(steps) if step <= value * (1 + 1e-9))


def _draw_plot(page: ET.Element, plot: Plot, left: int, top: int) -> None:
    """A plot with its title above it and its legend below it."""
    sizes = sorted({size for line in plot.lines.values() for size in line})
    across = Axis(sizes[0], max(sizes[-1], sizes[0] + 1), _WIDTH)
    up = axis([value for line in plot.lines.values() for value in line.values()], _HEIGHT)
    group = _add(page, "g", **{"class": "plot"})
    title = f"{plot.unit or 'count'} by number of {plot.dimension}"
    _add(group, "text", title, x=left, y=top + 12, **{"font-weight": "bold"})
    x, bottom = left + _LEFT, top + _TOP + _HEIGHT
    _draw_axes(group, across, up, sizes, x, bottom)
    y = bottom + 44
    for position, (name, line) in enumerate(plot.lines.items()):
        style = {
            "stroke": _COLOURS[position % len(_COLOURS)],
            "stroke-dasharray": _DASHES[position % len(_DASHES)],
            "stroke-width": "2",
            "fill": "none",
        }
        points = [
            (x + across.place(size), bottom - up.place(value))
            for size, value in sorted(line.items())
        ]
        course = _add(group, "polyline", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in points))
        course.attrib.update({**style, "class": "line"})
        _add(course, "title", f"{name}: {', '.join(_point(line, size) for size in sorted(line))}")
        for a, b in points:
            _add(group, "circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=2.5, fill=style["stroke"])
        key = _add(group, "path", d=f"M{x} {y - 4}h24")
        key.attrib.update(style)
        _add(group, "text", name, x=x + 32, y=y)
        y += _LINE


def _draw_axes(
    group: ET.Element, across: Axis, up: Axis, sizes: Iterable[int], x: int, bottom: int
) -> None:
    """Grid and labels. The sizes that were measured have labels if there is room."""
    small = {"fill": _FAINT_TEXT, "font-size": "10"}
    before = -math.inf
    for size in sizes:
        place = across.place(size)
        where = f"{x + place:.1f}"
        _add(group, "path", d=f"M{where} {bottom}v-{_HEIGHT}", stroke=_GRID)
        if place - before >= 26:
            label = _add(group, "text", str(size), x=where, y=bottom + 14)
            label.attrib.update({**small, "text-anchor": "middle"})
            before = place
    for value in up.labels():
        level = f"{bottom - up.place(value):.1f}"
        _add(group, "path", d=f"M{x} {level}h{_WIDTH}", stroke=_GRID)
        label = _add(group, "text", f"{value:g}", x=x - 5, y=level)
        label.attrib.update({**small, "text-anchor": "end", "dominant-baseline": "middle"})
    _add(group, "path", d=f"M{x} {bottom - _HEIGHT}v{_HEIGHT}h{_WIDTH}", stroke=_AXIS, fill="none")


def _point(line: Line, size: int) -> str:
    return f"{size}: {line[size]:.3g}"


def _add(parent: ET.Element, tag: str, content: str = "", /, **attributes: object) -> ET.Element:
    element = ET.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})
    element.text = content or None
    return element
