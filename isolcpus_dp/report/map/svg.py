"""Draws a host into an SVG file: a picture of nested boxes, and a legend.

The file is self-contained: no script, no style sheet, no embedded font. The background is always
light, whatever the colour of the page that contains the picture.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.report import snapshot
from isolcpus_dp.report.map import file, layout, model, page, text
from isolcpus_dp.report.map.legend import KEY_GAP, Legend
from isolcpus_dp.report.map.page import MARGIN, Page

if TYPE_CHECKING:
    from isolcpus_dp.report.map.layout import Box
    from isolcpus_dp.report.map.model import Mark
    from isolcpus_dp.report.snapshot import Snapshot

_TEXT, _FAINT_TEXT = "#1f2328", "#57606a"
_BASELINE = 14  # from the top of a line of text, and of a thread's box
_SLANT = 8  # horizontal extent of a hatching line
_HEADING = {"font-family": "sans-serif", "font-weight": "bold", "fill": _TEXT}


@dataclass(frozen=True)
class Look:
    """How a box is drawn. States of CPUs also differ in lines, not only in colours."""

    fill: str
    stroke: str
    text: str = "#000000"
    stroke_width: int = 1
    dashes: str = ""
    hatching: str = ""  # the colour of oblique lines


_PANEL = Look("#ffffff", "#8c959f")
_BOX_LOOKS: Mapping[layout.Kind, Look] = {
    "package": Look("#dde4ec", "#6e7781"),
    "node": Look("#eef2f6", "#8c959f"),
    "cache": Look("#ffffff", "#afb8c1"),
    "unplaced": Look("#ffffff", "#a40e26", dashes="3 2"),
    "core": Look("#c9d1d9", "#8c959f"),
}
_STATE_LOOKS = {
    model.HOUSEKEEPING: Look("#f6f8fa", "#afb8c1", "#57606a"),
    model.FREE: Look("#e6f7ea", "#1a7f37", "#116329"),
    model.NOT_OFFERED: Look("#fff8c5", "#9a6700", "#5c3d00", hatching="#e0c46c"),
    model.OFFLINE: Look("#ffffff", "#a40e26", "#a40e26", dashes="3 2"),
    model.DISPUTED: Look("#a40e26", "#4c0519", "#ffffff", stroke_width=2),
}


def write(sysfs: Path, config_file: Path | None, kubelet_dir: Path, svg: Path) -> None:
    """Draws the host into a file. Raises PictureError, and what snapshot.take() raises."""
    file.replace(svg, document(snapshot.take(sysfs, config_file, kubelet_dir)))


def document(seen: Snapshot) -> str:
    """The picture as an SVG document. The same Snapshot results in the same text."""
    marks = tuple(
        replace(mark, what=text.clean(mark.what), resource=text.clean(mark.resource))
        for mark in model.marks(seen)
    )
    composed = page.compose(seen, marks)
    root = _root(composed, marks)
    # Lines one pixel wide are sharp if they are in the middle of a pixel.
    picture = _add(root, "g", transform="translate(0.5 0.5)", fill=_TEXT)
    picture.attrib.update({"font-family": "monospace", "font-size": str(text.SIZE)})
    _add_rectangle(picture, _PANEL, 0, 0, composed.width - 1, composed.height - 1, 6)
    heading = _add(picture, "g", **_HEADING, **{"font-size": text.HEADING_SIZE})
    _add_lines(heading, composed.heading, MARGIN, MARGIN)
    x, y, machine = composed.machine
    _Machine(marks, model.mark_by_cpu(seen.machine, marks)).draw(picture, machine, x, y)
    _draw_legend(picture, *composed.legend)
    _add_lines(picture, composed.unseen, MARGIN, composed.unseen_y)
    ET.indent(root, " ")
    return f"{ET.tostring(root, encoding='unicode')}\n"


def _root(composed: Page, marks: Iterable[Mark]) -> ET.Element:
    size = {"width": composed.width, "height": composed.height}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"})
    root.attrib.update({name: str(value) for name, value in size.items()})
    root.set("viewBox", f"0 0 {composed.width} {composed.height}")
    _add(root, "title", f"isolcpus-dp map: {' '.join(composed.heading)}")
    _add(root, "desc", "\n".join((*map(_description, marks), *composed.unseen)))
    return root


class _Machine:
    """Draws the boxes of a machine, each with a tooltip that names the owners of its CPUs."""

    def __init__(self, legend: Iterable[Mark], mark_by_cpu: Mapping[int, Mark]) -> None:
        self._mark_by_cpu = mark_by_cpu
        self._marks_by_cpu: dict[int, list[Mark]] = {}
        for mark in legend:
            for cpu in mark.cpus:
                self._marks_by_cpu.setdefault(cpu, []).append(mark)

    def draw(self, parent: ET.Element, box: Box, x: int, y: int) -> None:
        group = _add(parent, "g", **{"class": box.kind})
        if box.kind == "thread":
            self._draw_thread(group, box, x, y)
        elif box.kind in _BOX_LOOKS:
            _add(group, "title", self._tooltip(box))
            _add_rectangle(group, _BOX_LOOKS[box.kind], x, y, box.width, box.height, 4)
        if box.heading:
            below = y + _BASELINE + 2
            _add(group, "text", box.heading, x=x + layout.PADDING, y=below, **_HEADING)
        for left, top, inside in box.inside:
            self.draw(group, inside, x + left, y + top)

    def _draw_thread(self, group: ET.Element, box: Box, x: int, y: int) -> None:
        [cpu] = box.cpus
        mark = self._mark_by_cpu[cpu]
        owners = [one for one in self._marks_by_cpu[cpu] if one.colour]
        state = "" if mark.colour else f": {mark.what}"
        _add(group, "title", "\n".join((f"CPU {cpu}{state}", *map(_description, owners))))
        _add_key(group, mark, x, y, box.width)
        number = {"x": x + box.width - 5, "y": y + _BASELINE, "fill": _look(mark).text}
        _add(group, "text", str(cpu), **number, **{"text-anchor": "end"})

    def _tooltip(self, box: Box) -> str:
        cpus = frozenset(box.cpus)
        marks = dict.fromkeys(mark for cpu in box.cpus for mark in self._marks_by_cpu[cpu])
        lines = (_description(replace(mark, cpus=mark.cpus & cpus)) for mark in marks)
        return "\n".join((f"{box.heading or box.kind}: CPU {cpulist.render(cpus)}", *lines))


def _description(mark: Mark) -> str:
    """A mark as a line of a tooltip."""
    resource = f" of {mark.resource}" if mark.resource else ""
    return f"{mark.label} {mark.what}: CPU {cpulist.render(mark.cpus)}{resource}"


def _draw_legend(parent: ET.Element, left: int, top: int, legend: Legend) -> None:
    group = _add(parent, "g", **{"class": "legend"})
    for heading in legend.headings:
        resource = _add(group, "g", **{"font-weight": "bold"})
        _add_lines(resource, heading.lines, left, top + heading.y)
    for entry in legend.entries:
        drawn = _add(group, "g", **{"class": "entry"})
        _add(drawn, "title", _description(entry.mark))
        x, y = left + entry.x, top + entry.y
        _add_key(drawn, entry.mark, x, y, legend.key_width)
        x += legend.key_width + KEY_GAP
        _add_lines(drawn, entry.names, x, y)
        cpus = _add(drawn, "g", fill=_FAINT_TEXT)
        _add_lines(cpus, entry.cpus, x, y + text.LINE * len(entry.names))


def _add_key(parent: ET.Element, mark: Mark, x: int, y: int, width: int) -> None:
    """The box of a CPU or of an entry in the legend, with its label."""
    look, height = _look(mark), layout.THREAD_HEIGHT
    _add_rectangle(parent, look, x, y, width, height, 3)
    right, bottom = x + width, y + height
    if look.hatching:
        feet = range(x + 3, right - _SLANT - 2, 5)
        lines = (f"M{foot} {bottom - 2}L{foot + _SLANT} {y + 2}" for foot in feet)
        _add(parent, "path", d="".join(lines), stroke=look.hatching)
    place = {"x": x + 5, "y": y + _BASELINE, "fill": look.text}
    _add(parent, "text", mark.label, **place, **{"font-weight": "bold"})


def _look(mark: Mark) -> Look:
    return Look(mark.colour, "#1f2328") if mark.colour else _STATE_LOOKS[mark.label]


def _add_rectangle(
    parent: ET.Element, look: Look, x: int, y: int, width: int, height: int, radius: int
) -> None:
    rectangle = _add(parent, "rect", x=x, y=y, width=width, height=height, rx=radius)
    rectangle.attrib.update({"fill": look.fill, "stroke": look.stroke})
    if look.stroke_width != 1:
        rectangle.set("stroke-width", str(look.stroke_width))
    if look.dashes:
        rectangle.set("stroke-dasharray", look.dashes)


def _add_lines(parent: ET.Element, lines: Iterable[str], x: int, y: int) -> None:
    for number, line in enumerate(lines):
        _add(parent, "text", line, x=x, y=y + _BASELINE + text.LINE * number)


def _add(parent: ET.Element, tag: str, content: str = "", /, **attributes: object) -> ET.Element:
    element = ET.SubElement(parent, tag, {name: str(value) for name, value in attributes.items()})
    element.text = content or None
    return element
