"""The layout of picture files: nothing overlaps, and every text fits into its box."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.report.map import legend, model

from .conftest import MakeUp
from .pictures import NAMESPACE, Rectangle, all_of, children, read, rectangle, texts
from .snapshots import (
    Seen,
    every_machine,
    look,
    on_8_cpus,
    on_128_cpus,
    on_512_cpus,
    on_a_hybrid_machine,
)

# Width of a character relative to the font size. DejaVu's fonts are the widest of the usual ones. A
# browser measures these for its monospace font, and for "NUMA node 0" in bold sans-serif.
MONOSPACE, SANS_SERIF_BOLD = 0.602, 0.692


@every_machine
def test_boxes_contain_their_parts_which_do_not_overlap(seen_on: Seen) -> None:
    def check(group: ET.Element, own: Rectangle) -> int:
        inside = list(children(group))
        for _, box in inside:
            assert own.contains(box)
        for (_, one), (_, other) in itertools.combinations(inside, 2):
            assert not one.overlaps(other), (one, other)
        return 1 + sum(check(child, box) for child, box in inside)

    root = read(seen_on())
    page = Rectangle(0, 0, float(root.get("width", "")), float(root.get("height", "")))
    assert root.get("viewBox") == f"0 0 {page.width:.0f} {page.height:.0f}"
    assert check(root, page) > len(all_of(root, "thread")) + len(all_of(root, "core"))


def overflowing(
    element: ET.Element, around: Rectangle, size: float, *, bold: bool
) -> Iterator[str]:
    """The texts that do not fit into the nearest rectangle around them."""
    own = None if element.get("class") == "entry" else rectangle(element)
    around, size = own or around, float(element.get("font-size", size))
    bold = bold or element.get("font-family") == "sans-serif"
    if element.tag == f"{NAMESPACE}text":
        text = element.text or ""
        # East Asian characters are as wide as they are high.
        advances = (1 if ord(letter) > 0x2E80 else MONOSPACE for letter in text)
        width = size * (len(text) * SANS_SERIF_BOLD if bold and size == 12 else sum(advances))
        x, y = float(element.get("x", "")), float(element.get("y", ""))
        left = x - width if element.get("text-anchor") == "end" else x
        if not around.contains(Rectangle(left, y - size, width, size * 1.3)):
            yield text
    for child in element:
        yield from overflowing(child, around, size, bold=bold)


@every_machine
def test_texts_are_within_their_boxes(seen_on: Seen) -> None:
    root = read(seen_on())
    page = Rectangle(0, 0, float(root.get("width", "")), float(root.get("height", "")))
    assert list(overflowing(root, page, 0, bold=False)) == []


@every_machine
def test_entries_of_the_legend_do_not_overlap(seen_on: Seen) -> None:
    seen = seen_on()
    entries = all_of(read(seen), "entry")
    assert [texts(entry)[0] for entry in entries] == [mark.label for mark in model.marks(seen)]
    boxes = []
    for entry in entries:
        lines = list(entry.iter(f"{NAMESPACE}text"))[1:]
        key = rectangle(entry)
        assert key
        width = max(len(line.text or "") for line in lines) * 12 * MONOSPACE
        left, bottom = float(lines[0].get("x", "")), float(lines[-1].get("y", ""))
        assert left > key.x + key.width
        boxes.append(Rectangle(key.x, key.y, left + width - key.x, bottom - key.y))
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


@pytest.mark.parametrize("seen_on", [on_8_cpus, on_128_cpus, on_512_cpus, on_a_hybrid_machine])
def test_picture_fits_a_page(seen_on: Seen) -> None:
    root = read(seen_on())
    width, height = int(root.get("width", "")), int(root.get("height", ""))
    assert width <= 1400
    assert 0.5 < width / height < 2.2


def test_hybrid_machine_has_separate_rows_for_kinds_of_cores() -> None:
    root = read(on_a_hybrid_machine())
    rows: dict[float, set[int]] = {}
    for core in all_of(root, "core"):
        box = rectangle(core)
        assert box
        rows.setdefault(box.y, set()).add(len(all_of(core, "thread")))
    assert set(map(frozenset, rows.values())) == {frozenset({1}), frozenset({2})}


def test_core_with_an_offline_thread_stays_in_its_row(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", set())
    made_up.set_offline(5)
    root = read(look(machine.read(made_up.root)))
    [cache] = all_of(root, "cache")
    boxes = [rectangle(core) for core in all_of(cache, "core")]
    assert [len(all_of(core, "thread")) for core in all_of(cache, "core")] == [2, 1, 2, 2]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0].y == boxes[1].y
    assert boxes[0].height > boxes[1].height


def test_long_list_of_cpus_gets_all_columns_of_the_legend() -> None:
    long = model.Mark("B", "default/scattered/main", frozenset(range(1, 200, 2)))
    short = [model.Mark(label, label, frozenset({0})) for label in "ACD"]
    arranged = legend.arrange((short[0], long, *short[1:]), 3, legend.width(3))
    assert max(map(len, arranged.entries[1].cpus)) > 80
    assert [entry.x for entry in arranged.entries] == [0, 0, 0, 306]
    assert len({entry.y for entry in arranged.entries}) == 3
