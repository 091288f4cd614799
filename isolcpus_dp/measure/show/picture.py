"""Draws the result of a measurement into an SVG file: a histogram for each CPU, all on one page.

The file is self-contained: no script, no style sheet, no embedded font. The background is always
light, whatever the colour of the page that contains the picture.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.measure.cause import find
from isolcpus_dp.measure.show import axes, caption
from isolcpus_dp.report.map import PictureError, file, text

if TYPE_CHECKING:
    from isolcpus_dp.measure.cause.cause import Cause
    from isolcpus_dp.measure.result import Result
    from isolcpus_dp.measure.show.axes import Axes, Bar

__all__ = ["PictureError", "draw", "write"]

_MARGIN, _GAP, _PADDING = 16, 12, 8  # around the page, between cells, in a cell
_ROOM, _NARROWEST_CELL, _WIDEST_CELL = 880, 168, 600
_LEFT, _RIGHT = 22, 6  # of a plot, for labels
_SMALL, _SMALLEST = 11, 10  # font sizes: of causes, of labels
_SMALL_LINE = 15
_NARROW = 250  # a cell in which a cause needs a third line
_NAME_HEIGHT = text.LINE + 6

# Blue and vermilion differ for people with any kind of colour blindness, and in grey.
_WITHIN, _OVER = "#0072b2", "#d55e00"
_TEXT, _FAINT_TEXT, _OVER_TEXT = "#1f2328", "#57606a", "#a33b00"
_FRAME, _GRID, _AXIS = "#afb8c1", "#e4e8ec", "#8c959f"


def write(result: Result, path: Path) -> None:
    """Draws the result into a file. Raises PictureError."""
    file.replace(path, draw(result, find.find(result)))


def draw(result: Result, causes: Mapping[int, Cause]) -> str:
    """The picture as an SVG document. The same result gives the same text."""
    return _Page(result, causes).document()


@dataclass(frozen=True)
class _Grid:
    """The arrangement of the cells, in pixels."""

    columns: int
    rows: int
    width: int  # of a cell
    height: int
    plot_width: int
    plot_height: int
    cause_lines: int

    @property
    def full_width(self) -> int:
        return self.columns * (self.width + _GAP) - _GAP

    @property
    def full_height(self) -> int:
        return self.rows * (self.height + _GAP)

    def corner(self, position: int) -> tuple[int, int]:
        """The corner of a cell, from the corner of the grid."""
        row, column = divmod(position, self.columns)
        return column * (self.width + _GAP), row * (self.height + _GAP)


def _grid(cells: int) -> _Grid:
    """About as many columns as rows, but at most 8, or 16 for more than 128 cells."""
    columns = max(min(math.ceil(math.sqrt(cells)), 8 if cells <= 128 else 16), 1)
    width = min(max((_ROOM + _GAP) // columns - _GAP, _NARROWEST_CELL), _WIDEST_CELL)
    plot_width = width - 2 * _PADDING - _LEFT - _RIGHT
    plot_height = min(max(plot_width * 3 // 10, 56), 120)
    cause_lines = 3 if width < _NARROW else 2
    height = 2 * _PADDING + _NAME_HEIGHT + plot_height + _SMALL_LINE * (1 + cause_lines)
    rows = -(-cells // columns)
    return _Grid(columns, rows, width, height, plot_width, plot_height, cause_lines)


class _Page:
    """One picture: the grid of cells, and the words above and below it."""

    def __init__(self, result: Result, causes: Mapping[int, Cause]) -> None:
        self._result = result
        self._causes = causes
        self._cpus = sorted(result.histograms)
        self._grid = _grid(len(self._cpus))
        self._axes = self._fitting_axes()

    def _fitting_axes(self) -> Axes:
        histograms = self._result.histograms.values()
        lengths = [length for one in histograms for length in (*one.counts, one.longest_us)]
        if self._result.limit_us is not None:
            lengths.append(self._result.limit_us)
        counts = (count for one in histograms for count in one.counts.values())
        return axes.fitting(self._grid.plot_width, self._grid.plot_height, lengths, counts)

    def document(self) -> str:
        width = self._grid.full_width
        root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
        _add(root, "title", caption.heading(self._result))
        _add(root, "desc", "\n".join(self._description()))
        # Lines one pixel wide are sharp if they are in the middle of a pixel.
        page = _add(root, "g", transform="translate(0.5 0.5)", fill=_TEXT)
        page.attrib.update({"font-family": "monospace", "font-size": str(text.SIZE)})
        panel = _add(page, "rect", x=0, y=0, rx=6, fill="#ffffff", stroke=_AXIS)
        y = self._draw_top(page, width)
        for position, cpu in enumerate(self._cpus):
            left, top = self._grid.corner(position)
            self._draw_cell(page, cpu, _MARGIN + left, y + top)
        y += self._grid.full_height
        for sentence in caption.notes(self._result, self._causes):
            y = _add_lines(page, text.lines(sentence, width, " "), y)
        size = {"width": width + 2 * _MARGIN, "height": y + _MARGIN}
        panel.attrib.update({name: str(length - 1) for name, length in size.items()})
        root.attrib.update({name: str(length) for name, length in size.items()})
        root.set("viewBox", f"0 0 {size['width']} {size['height']}")
        ET.indent(root, " ")
        return f"{ET.tostring(root, encoding='unicode')}\n"

    def _description(self) -> Iterator[str]:
        yield caption.summary(self._result)
        yield from caption.notes(self._result, self._causes)
        yield from (text.clean(f"not seen: {one}") for one in self._result.recording.unseen)

    def _draw_top(self, page: ET.Element, width: int) -> int:
        """The heading, the summary and the legend. Returns where the cells begin."""
        lines = text.lines(caption.heading(self._result), width, " ", text.HEADING_SIZE)
        bold = {"font-family": "sans-serif", "font-weight": "bold"}
        heading = _add(page, "g", **bold, **{"font-size": text.HEADING_SIZE})
        y = _add_lines(heading, lines, _MARGIN)
        y = _add_lines(page, text.lines(caption.summary(self._result), width, " "), y)
        faint = _add(page, "g", fill=_FAINT_TEXT)
        y = _add_lines(faint, text.lines(caption.HOW_TO_READ, width, " "), y)
        return self._draw_legend(page, width, y + 4) + _GAP

    def _draw_legend(self, page: ET.Element, width: int, y: int) -> int:
        """The keys of the legend in lines. Returns where the last one ends."""
        legend = _add(page, "g", **{"class": "legend"})
        x = 0
        for colour, shape, words in self._keys():
            room = 16 + text.width(len(words)) + 16
            if x and x + room > width:
                x, y = 0, y + text.LINE
            _add(legend, "path", d=shape(_MARGIN + x, y), fill=colour, stroke=colour)
            _add(legend, "text", words, x=_MARGIN + x + 18, y=y + 14)
            x += room
        return y + text.LINE

    def _keys(self) -> Iterator[tuple[str, Callable[[float, float], str], str]]:
        limit = self._result.limit_us
        if limit is None:
            yield _WITHIN, _swatch, "iterations"
        else:
            yield _WITHIN, _swatch, "within the limit"
            yield _OVER, _swatch, "over the limit"
            yield _TEXT, _dashes, f"limit: {caption.microseconds(limit)}"
        yield _TEXT, _triangle, "longest iteration"

    def _draw_cell(self, page: ET.Element, cpu: int, x: int, y: int) -> None:
        exceeded = cpu in self._result.exceeded
        cell = _add(page, "g", **{"class": "cpu"})
        _add(cell, "title", caption.tooltip(self._result, self._causes, cpu))
        frame = {"width": self._grid.width, "height": self._grid.height, "rx": 4}
        colours = {"fill": "#ffffff", "stroke": _OVER if exceeded else _FRAME}
        _add(cell, "rect", x=x, y=y, **frame, **colours, **{"stroke-width": 2 if exceeded else 1})
        x, y = x + _PADDING, y + _PADDING
        self._draw_name(cell, cpu, x, y)
        y += _NAME_HEIGHT
        self._draw_plot(cell, cpu, x + _LEFT, y + self._grid.plot_height)
        y += self._grid.plot_height + _SMALL_LINE
        if cpu in self._causes:
            cause = _add(cell, "g", fill=_TEXT, **{"font-size": _SMALL})
            _add_lines(cause, self._cause(cpu), y, x, _SMALL_LINE)

    def _draw_name(self, cell: ET.Element, cpu: int, x: int, y: int) -> None:
        """The number of the CPU, and its longest iteration in words that fit beside it."""
        room = self._grid.width - 2 * _PADDING
        name = f"CPU {cpu}"
        _add(cell, "text", name, x=x, y=y + 12, **{"font-weight": "bold"})
        beside = room - text.width(len(name) + 1)
        forms = list(caption.longest(self._result, cpu))
        words = next((one for one in forms if text.width(len(one)) <= beside), forms[-1])
        colour = _OVER_TEXT if cpu in self._result.exceeded else _TEXT
        place = {"x": x + room, "y": y + 12, "fill": colour, "text-anchor": "end"}
        _add(cell, "text", words, **place)

    def _cause(self, cpu: int) -> tuple[str, ...]:
        """The cause in lines; what does not fit is in the tooltip."""
        room = self._grid.width - 2 * _PADDING
        words = text.clean(self._causes[cpu].words)
        found = text.lines(words, room, " ", _SMALL)
        most = self._grid.cause_lines
        if len(found) <= most:
            return found
        return (*found[: most - 1], f"{found[most - 1][:-1]}\N{HORIZONTAL ELLIPSIS}")

    def _draw_plot(self, cell: ET.Element, cpu: int, x: int, bottom: int) -> None:
        self._draw_axes(cell, x, bottom)
        histogram, limit = self._result.histograms[cpu], self._result.limit_us
        within = {a: n for a, n in histogram.counts.items() if limit is None or a <= limit}
        over = {a: n for a, n in histogram.counts.items() if a not in within}
        for colour, counts in ((_WITHIN, within), (_OVER, over)):
            shape = "".join(_outline(x, bottom, bar) for bar in self._axes.bars(counts))
            if shape:
                _add(cell, "path", d=shape, fill=colour, **{"class": "bars"})
        if limit is not None:
            where = _short(x + self._axes.edge(limit))
            line = {"x1": where, "x2": where, "y1": bottom - self._grid.plot_height, "y2": bottom}
            _add(
                cell, "line", **line, stroke=_TEXT, **{"class": "limit", "stroke-dasharray": "3 2"}
            )
        if histogram.counts:
            tip = x + self._axes.x(histogram.longest_us)
            triangle = {"d": _triangle(tip - 7, bottom - 15), "class": "longest"}
            _add(cell, "path", **triangle, fill=_TEXT, stroke="#ffffff")

    def _draw_axes(self, cell: ET.Element, x: int, bottom: int) -> None:
        width, height = self._grid.plot_width, self._grid.plot_height
        grid = _add(cell, "g", stroke=_GRID)
        labels = _add(cell, "g", fill=_FAINT_TEXT, **{"font-size": _SMALLEST})
        for length in self._axes.lengths():
            where = _short(x + self._axes.x(length))
            _add(grid, "line", x1=where, x2=where, y1=bottom - height, y2=bottom)
            place = {"x": where, "y": bottom + 11, "text-anchor": "middle"}
            _add(labels, "text", axes.short(length), **place)
        for count in self._axes.counts():
            level = _short(bottom - self._axes.y(count))
            _add(grid, "line", x1=x, x2=x + width, y1=level, y2=level)
            place = {"x": x - 4, "y": _short(float(level) + 3), "text-anchor": "end"}
            _add(labels, "text", axes.short(count), **place)
        _add(cell, "line", x1=x, x2=x + width, y1=bottom, y2=bottom, stroke=_AXIS)


def _outline(x: float, bottom: float, bar: Bar) -> str:
    """A bar as a path. Its edges are rounded, so that neighbours touch."""
    left, right = round(x + bar.x, 1), round(x + bar.x + bar.width, 1)
    top = round(bottom - bar.height, 1)
    return f"M{_short(left)} {bottom}V{_short(top)}H{_short(right)}V{bottom}z"


def _swatch(x: float, y: float) -> str:
    return f"M{x} {y + 5}h12v10h-12z"


def _dashes(x: float, y: float) -> str:
    return f"M{x + 6} {y + 3}v3m0 2v3m0 2v3"


def _triangle(x: float, y: float) -> str:
    """A triangle with its tip 7 pixels to the right and 12 below."""
    return f"M{_short(x + 3)} {_short(y + 6)}h8l-4 6z"


def _short(number: float) -> str:
    """One decimal place is enough, and makes the file smaller."""
    return caption.number(number)


def _add_lines(
    parent: ET.Element, lines: Iterable[str], y: int, x: int = _MARGIN, line: int = text.LINE
) -> int:
    """Adds lines of text below y. Returns where they end."""
    for words in lines:
        _add(parent, "text", words, x=x, y=y + line - 3)
        y += line
    return y


def _add(parent: ET.Element, tag: str, content: str = "", /, **attributes: object) -> ET.Element:
    element = ET.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})
    element.text = content or None
    return element
