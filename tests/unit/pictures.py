"""Parses picture files, for the tests of the map."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from isolcpus_dp.report.map import svg
from isolcpus_dp.report.snapshot import Snapshot

NAMESPACE = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Rectangle:
    x: float
    y: float
    width: float
    height: float

    def contains(self, other: Rectangle) -> bool:
        return (
            self.x <= other.x
            and self.y <= other.y
            and other.x + other.width <= self.x + self.width
            and other.y + other.height <= self.y + self.height
        )

    def overlaps(self, other: Rectangle) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


def read(seen: Snapshot) -> ET.Element:
    return ET.fromstring(svg.document(seen))


def all_of(root: ET.Element, kind: str) -> list[ET.Element]:
    """All groups of a class, such as thread."""
    return [group for group in root.iter(f"{NAMESPACE}g") if group.get("class") == kind]


def tooltip(group: ET.Element) -> str:
    title = group.find(f"{NAMESPACE}title")
    assert title is not None
    return title.text or ""


def texts(group: ET.Element) -> list[str]:
    return [element.text or "" for element in group.iter(f"{NAMESPACE}text")]


def rectangle(group: ET.Element) -> Rectangle | None:
    """The rectangle of the group itself."""
    found = group.find(f"{NAMESPACE}rect")
    if found is None:
        return None
    return Rectangle(*(float(found.get(name, "")) for name in ("x", "y", "width", "height")))


def children(group: ET.Element) -> Iterator[tuple[ET.Element, Rectangle]]:
    """The nearest groups inside that have a rectangle, with the rectangle."""
    for child in group.findall(f"{NAMESPACE}g"):
        own = rectangle(child)
        if own:
            yield child, own
        else:
            yield from children(child)


def cpus_drawn(root: ET.Element) -> list[str]:
    """Label and number of every thread, sorted by number."""
    drawn = (texts(thread) for thread in all_of(root, "thread"))
    return [f"{label} {cpu}" for label, cpu in sorted(drawn, key=lambda text: int(text[1]))]
