"""The contents of the picture file of a host."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.report.map import model, svg

from .conftest import MakeUp
from .pictures import NAMESPACE, all_of, cpus_drawn, read, texts, tooltip
from .snapshots import (
    RESOURCE,
    Seen,
    big,
    every_machine,
    look,
    on_many_sockets,
    owner,
    with_offline_cpus,
    without_numa_caches_and_packages,
)


@every_machine
def test_every_cpu_is_drawn_once_with_its_label(seen_on: Seen) -> None:
    seen = seen_on()
    marks = model.mark_by_cpu(seen.machine, model.marks(seen))
    assert cpus_drawn(read(seen)) == [
        f"{marks[cpu].label} {cpu}" for cpu in sorted(seen.machine.present)
    ]


def test_cpus_are_in_their_package_node_cache_and_core(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x2x2", {1, 3, 5, 7}).root)
    root = read(look(host, owner("forwarder", 3, 7)))
    [_, package] = all_of(root, "package")
    [node] = all_of(package, "node")
    [cache] = all_of(node, "cache")
    assert cpus_drawn(all_of(cache, "core")[0]) == [". 2", ". 6"]
    assert cpus_drawn(all_of(cache, "core")[1]) == ["A 3", "A 7"]
    assert [texts(box)[0] for box in (package, node, cache)] == [
        "package 1",
        "NUMA node 1",
        "last-level cache",
    ]


def test_tooltips_name_cpus_and_their_owners(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x3x2", {1, 2, 4, 5}).root)
    root = read(look(host, owner("forwarder", 1, 4)))
    threads = {texts(thread)[1]: tooltip(thread) for thread in all_of(root, "thread")}
    assert threads["0"] == "CPU 0: housekeeping"
    assert threads["2"] == "CPU 2: isolated, free"
    assert threads["4"] == ("CPU 4\nA default/forwarder/main: CPU 1,4 of windriver.com/isolcpus")
    assert tooltip(all_of(root, "core")[1]) == (
        "core: CPU 1,4\nA default/forwarder/main: CPU 1,4 of windriver.com/isolcpus"
    )
    inside = (
        ": CPU 0-5\n. housekeeping: CPU 0,3"
        "\nA default/forwarder/main: CPU 1,4 of windriver.com/isolcpus\no isolated, free: CPU 2,5"
    )
    assert tooltip(all_of(root, "package")[0]) == f"package 0{inside}"
    assert tooltip(all_of(root, "node")[0]) == f"NUMA node 0{inside}"
    assert tooltip(all_of(root, "cache")[0]) == f"last-level cache{inside}"


def test_tooltips_show_disputed_and_offline_cpus() -> None:
    root = read(with_offline_cpus())
    threads = {texts(thread)[1]: tooltip(thread) for thread in all_of(root, "thread")}
    assert threads["9"] == (
        "CPU 9: owned by several"
        "\nA default/ended/main: CPU 1,9 of windriver.com/isolcpus"
        "\nB default/new/main: CPU 9-10 of windriver.com/isolcpus"
    )
    assert threads["11"] == "CPU 11: offline"


def test_legend_has_name_cpus_and_resource_of_each_owner(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x1", {1, 2, 3}).root)
    both = owner("both", 1), owner("both", 3, resource="example.com/isolcpus-dpdk")
    root = read(look(host, *both, owner("one", 2)))
    [legend] = all_of(root, "legend")
    assert [" ".join(texts(group)) for group in legend] == [
        "windriver.com/isolcpus",
        "example.com/isolcpus-dpdk",
        ". housekeeping 1 CPU: 0",
        "A default/both/main 1 CPU: 1",
        "B default/one/main 1 CPU: 2",
        "A default/both/main 1 CPU: 3",
    ]


def test_resource_is_above_its_owners(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x1", {1, 2, 3}).root)
    root = read(look(host, owner("one", 1), owner("two", 2, resource="example.com/other")))
    [legend] = all_of(root, "legend")
    lines = {text.text: float(text.get("y", "")) for text in legend.iter(f"{NAMESPACE}text")}
    first = ["isolated, free", RESOURCE, "default/one/main"]
    order = [*first, "example.com/other", "default/two/main"]
    assert sorted(order, key=lambda text: lines[text]) == order


def test_offline_cpus_of_unknown_core_have_their_own_box() -> None:
    root = read(with_offline_cpus())
    assert [cpus_drawn(box) for box in all_of(root, "unplaced")] == [["x 3", "x 11"], ["x 13"]]
    assert texts(all_of(root, "unplaced")[0])[0] == "core not known while offline"


def test_host_without_numa_has_no_boxes_for_nodes_and_caches() -> None:
    root = read(without_numa_caches_and_packages())
    assert [texts(box)[0] for box in all_of(root, "package")] == ["package not known"]
    assert not all_of(root, "node")
    assert not all_of(root, "cache")


def look_of(root: ET.Element, label: str) -> tuple[object, ...]:
    """The look of the CPUs of a label, without the colours."""
    thread = next(one for one in all_of(root, "thread") if texts(one)[0] == label)
    box = thread.find(f"{NAMESPACE}rect")
    assert box is not None
    hatched = thread.find(f"{NAMESPACE}path") is not None
    return hatched, box.get("stroke-dasharray"), box.get("stroke-width")


def test_states_differ_in_more_than_colour() -> None:
    root = read(with_offline_cpus())
    looks = {label: look_of(root, label) for label in (".", "-", "x", "!")}
    assert len(set(looks.values())) == 4, looks
    keys = {texts(entry)[0]: entry for entry in all_of(root, "entry")}
    assert keys["-"].find(f"{NAMESPACE}path") is not None  # hatched in the legend, too
    assert look_of(root, "A") == look_of(root, ".")  # an owner has its letter and its colour


def luminance(colour: str) -> float:
    """The relative luminance, as defined by WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("seen_on", [on_many_sockets, with_offline_cpus])
def test_texts_have_enough_contrast_to_their_colours(seen_on: Seen) -> None:
    for thread in all_of(read(seen_on()), "thread"):
        box, text = thread.find(f"{NAMESPACE}rect"), thread.find(f"{NAMESPACE}text")
        assert box is not None
        assert text is not None
        pair = sorted(luminance(element.get("fill", "")) for element in (box, text))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5, texts(thread)


def test_colours_repeat_with_different_letters() -> None:
    entries = all_of(read(on_many_sockets()), "entry")
    fills = [entry[1].get("fill") for entry in entries]
    assert fills[0] == fills[10]
    assert len(set(fills[:10])) == 10
    assert [texts(entry)[0] for entry in (entries[0], entries[10])] == ["A", "K"]


def test_missing_data_is_named_at_the_bottom(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    root = read(look(host, unseen=("who owns which CPU: there is no socket",)))
    lines = texts(root)[-2:]
    assert lines == ["not seen: who owns which CPU: there", "is no socket"]
    heights = [float(text.get("y", "")) for text in root.iter(f"{NAMESPACE}text")]
    assert sorted(heights)[-2:] == heights[-2:]
    assert "isolated, owner unknown" in texts(root)


def test_summary_is_in_heading_title_and_description() -> None:
    root = read(with_offline_cpus())
    summary = "16 CPUs, 2 packages, 2 NUMA nodes: 12 isolated, 3 owned, 3 offline"
    assert texts(root)[0] == summary
    assert root.get("role") == "img"
    assert tooltip(root) == f"isolcpus-dp map: {summary}"
    description = root.findtext(f"{NAMESPACE}desc") or ""
    assert ". housekeeping: CPU 0,4,8,12\n" in description
    assert "A default/ended/main: CPU 1,9 of windriver.com/isolcpus\n" in description


@every_machine
def test_file_is_self_contained_and_has_no_scripts(seen_on: Seen) -> None:
    document = svg.document(seen_on())
    assert re.findall(r"\w+://[^\"' ]*", document) == ["http://www.w3.org/2000/svg"]
    root = ET.fromstring(document)
    tags = {element.tag[len(NAMESPACE) :] for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "g", "rect", "path", "text"}
    names = {name for element in root.iter() for name in element.keys()}  # noqa: SIM118
    assert not [name for name in names if name.startswith("on") or "href" in name]
    fonts = {element.get("font-family") for element in root.iter()}
    assert fonts == {None, "monospace", "sans-serif"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("]]>&amp;\"'", "]]>&amp;\"'"),
        ("a\x00b\x1b[31m\ud800", "a\ufffdb\ufffd[31m\ufffd"),
        ("a\u202eb\nc\td", "a\ufffdb c d"),
    ],
)
def test_hostile_names_are_escaped(make_up: MakeUp, name: str, shown: str) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    document = svg.document(look(host, owner(name, 1), unseen=(name,)))
    root = ET.fromstring(document.encode("utf-8"))
    assert f"default/{shown}/main" in tooltip(all_of(root, "entry")[1])
    assert f"not seen: {shown}" in texts(root)
    assert not list(root.iter(f"{NAMESPACE}script"))


def test_same_host_results_in_the_same_file() -> None:
    one, other = (look(big(2, 32, 2), owner("forwarder", 1, 65)) for _ in range(2))
    assert svg.document(one) == svg.document(other)
