"""The picture of a host in a terminal without colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from isolcpus_dp.config import PoolConfig
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.report.map import draw, model
from isolcpus_dp.report.snapshot import Owner, Snapshot
from isolcpus_dp.simulator.machine import MadeUpMachine, regular

from .conftest import MakeUp
from .snapshots import RESOURCE, big, look, owner


def drawn(seen: Snapshot, width: int = 80, encoding: str = "utf-8") -> str:
    """What a terminal without colours shows, without spaces at the ends of lines."""
    written = io.BytesIO()
    file = io.TextIOWrapper(written, encoding)
    Console(file=file, width=width, color_system=None).print(draw.picture(seen, width))
    file.flush()
    lines = written.getvalue().decode(encoding).splitlines()
    assert max(map(len, lines)) <= width
    return "\n" + "\n".join(line.rstrip() for line in lines) + "\n"


def test_cpus_are_drawn_in_their_package_node_cache_and_core(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x2x2", {1, 3, 5, 7}).root)
    assert (
        drawn(look(host, owner("forwarder", 3, 7)))
        == """
╭─ package 0 ──────────╮
│ ╭─ NUMA node 0 ────╮ │
│ │ last-level cache │ │
│ │ . 0  o 1         │ │
│ │ . 4  o 5         │ │
│ ╰──────────────────╯ │
╰──────────────────────╯
╭─ package 1 ──────────╮
│ ╭─ NUMA node 1 ────╮ │
│ │ last-level cache │ │
│ │ . 2  A 3         │ │
│ │ . 6  A 7         │ │
│ ╰──────────────────╯ │
╰──────────────────────╯
.  housekeeping            0,2,4,6
o  isolated, free          1,5
A  default/forwarder/main  3,7      windriver.com/isolcpus
"""
    )


def test_offline_cpu_of_unknown_core_is_drawn_separately(make_up: MakeUp) -> None:
    made_up = make_up("1x2x2", {1, 3})
    made_up.set_offline(3)
    assert (
        drawn(look(machine.read(made_up.root), owner("forwarder", 1, 3)))
        == """
╭─ package 0 ──────────────────────╮
│ ╭─ NUMA node 0 ────────────────╮ │
│ │ last-level cache             │ │
│ │ . 0  A 1                     │ │
│ │ . 2                          │ │
│ │ core not known while offline │ │
│ │ x 3                          │ │
│ ╰──────────────────────────────╯ │
╰──────────────────────────────────╯
.  housekeeping            0,2
x  offline                 3
A  default/forwarder/main  1,3  windriver.com/isolcpus
"""
    )


@pytest.mark.parametrize("offline", [{0}, {3}, {0, 1}, {1, 3}, {0, 1, 2}])
def test_cpu_that_goes_offline_keeps_its_place(make_up: MakeUp, offline: set[int]) -> None:
    made_up = make_up("1x2x2", {1, 3})
    before = machine.read(made_up.root)
    made_up.set_offline(*offline)
    states = {0: ".", 1: "o", 2: ".", 3: "o"} | dict.fromkeys(offline, "x")
    text = drawn(look(machine.read(made_up.root, before)))
    assert text.count("last-level cache") == 1
    assert f"│ │ {states[0]} 0  {states[1]} 1         │ │" in text
    assert f"│ │ {states[2]} 2  {states[3]} 3         │ │" in text


def test_caches_of_a_node_are_drawn_below_each_other(tmp_path: Path) -> None:
    places = [replace(place, cache=place.core // 2) for place in regular(1, 4, 1)]
    host = machine.read(MadeUpMachine(tmp_path, places, {2, 3}).root)
    assert (
        drawn(look(host))
        == """
╭─ package 0 ──────────╮
│ ╭─ NUMA node 0 ────╮ │
│ │ last-level cache │ │
│ │ . 0  . 1         │ │
│ │ last-level cache │ │
│ │ o 2  o 3         │ │
│ ╰──────────────────╯ │
╰──────────────────────╯
.  housekeeping    0-1
o  isolated, free  2-3
"""
    )


def test_nodes_of_a_package_are_drawn_in_it(tmp_path: Path) -> None:
    places = [replace(place, cache=place.core, node=place.core) for place in regular(1, 2, 2)]
    host = machine.read(MadeUpMachine(tmp_path, places).root)
    assert (
        drawn(look(host))
        == """
╭─ package 0 ───────╮
│ ╭─ NUMA node 0 ─╮ │
│ │ . 0           │ │
│ │ . 2           │ │
│ ╰───────────────╯ │
│ ╭─ NUMA node 1 ─╮ │
│ │ . 1           │ │
│ │ . 3           │ │
│ ╰───────────────╯ │
╰───────────────────╯
.  housekeeping  0-3
"""
    )


def test_host_without_numa_caches_and_packages_is_drawn(
    make_up: MakeUp,
) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    bare = {
        cpu: replace(one, package=None, node=None, cache=frozenset({cpu}))
        for cpu, one in host.cpus.items()
    }
    assert (
        drawn(look(replace(host, cpus=bare)))
        == """
╭─ package not known ─╮
│ . 0  o 1            │
╰─────────────────────╯
.  housekeeping    0
o  isolated, free  1
"""
    )


def test_isolated_cpus_that_are_not_offered_differ_from_free_ones(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x3x2", {1, 2, 4, 5}).root)
    config = PoolConfig(cpus=frozenset({2, 5}), granularity="core", threads="one")
    text = drawn(look(host, config=config))
    assert "│ . 0  - 1  o 2    │" in text
    assert "│ . 3  - 4  - 5    │" in text
    assert "-  isolated, not offered  1,4-5\n" in text


def test_cpu_with_two_owners_is_marked_as_disputed(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x1", {1, 2, 3}).root)
    text = drawn(look(host, owner("ended", 1, 2), owner("new", 2, 3)))
    assert "│ . 0  A 1  ! 2  B 3 │" in text
    assert "!  owned by several    2\n" in text


def test_container_has_one_letter_for_all_its_resources(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x1", {1, 2, 3}).root)
    both = owner("both", 1), owner("both", 3, resource="example.com/isolcpus-dpdk")
    text = drawn(look(host, *both, owner("one", 2)))
    assert "│ . 0  A 1  B 2  A 3 │" in text
    assert "A  default/both/main  1  windriver.com/isolcpus\n" in text
    assert "A  default/both/main  3  example.com/isolcpus-dpdk\n" in text


def test_columns_are_aligned_with_two_letter_labels(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x64x1", set(range(64))).root)
    lines = drawn(look(host, *(owner(f"pod{cpu}", cpu) for cpu in range(60)))).splitlines()
    assert lines[4] == "│ │  A  0   B  1   C  2   D  3   E  4   F  5   G  6   H  7 │ │"
    assert lines[10] == "│ │  y 48   z 49  AA 50  AB 51  AC 52  AD 53  AE 54  AF 55 │ │"
    assert lines[11] == "│ │ AG 56  AH 57  AI 58  AJ 59   o 60   o 61   o 62   o 63 │ │"
    assert "AJ  default/pod59/main  59     windriver.com/isolcpus" in lines


def test_missing_data_is_named_and_free_is_qualified(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    text = drawn(look(host, unseen=("who owns which CPU: there is no socket",)))
    assert "o  isolated, owner unknown  1\n" in text
    assert text.endswith("\nnot seen: who owns which CPU: there is no socket\n")


def test_names_that_look_like_markup_are_drawn_unchanged(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    text = drawn(look(host, unseen=("[bold]:smiley: [/]",)))
    assert "not seen: [bold]:smiley: [/]\n" in text


def test_128_cpus_fit_into_80_columns() -> None:
    host = big(2, 32, 2)
    long = Allocation("n" * 63, "p" * 253, "c" * 63, RESOURCE, ())
    scattered = frozenset(range(1, 32, 2)) | frozenset(range(65, 96, 2))
    text = drawn(look(host, Owner(long, scattered), owner("forwarder", 2, 66)))
    assert "│ │ .   0  A   1  B   2  A   3  o   4  A   5  o   6  A   7 │ │\n" in text
    assert "│ │ .  64  A  65  B  66  A  67  o  68  A  69  o  70  A  71 │ │\n" in text
    assert "│ │ o 120  o 121  o 122  o 123  o 124  o 125  o 126  o 127 │ │\n" in text
    framed = [re.findall(r"[^ │] +(\d+)", line) for line in text.splitlines() if "│ │" in line]
    assert sorted(int(cpu) for line in framed for cpu in line) == list(range(128))
    assert re.search(r"^   p+  27,29,31,65,67,69,$", text, re.MULTILINE), text


@pytest.mark.parametrize("width", [1, 12, 30, 79, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    drawn(look(big(2, 32, 2), owner("forwarder", 1, 65)), width)


def test_wide_terminal_shows_more_cores_in_a_line(tmp_path: Path) -> None:
    host = machine.read(MadeUpMachine(tmp_path, regular(1, 32, 1)).root)
    assert "│ │ .  0  .  1  .  2" in drawn(look(host), 80)
    assert ".  7  .  8" not in drawn(look(host), 60)
    assert ".  7  .  8" in drawn(look(host), 130)


def test_terminal_without_unicode_gets_ascii_frames(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    assert (
        drawn(look(host), encoding="ascii")
        == """
+- package 0 ----------+
| +- NUMA node 0 ----+ |
| | last-level cache | |
| | . 0  o 1         | |
| +------------------+ |
+----------------------+
.  housekeeping    0
o  isolated, free  1
"""
    )


def styles(seen: Snapshot) -> Mapping[str, str]:
    return {mark.label: draw.style(mark) for mark in model.marks(seen)}


def test_neighbouring_owners_have_different_colours(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x12x1", set(range(12))).root)
    seen = look(host, *(owner(f"pod{cpu:02}", cpu) for cpu in range(10)))
    assert len(set(styles(seen).values())) == 11  # and free CPUs
    assert all("black on" in style for label, style in styles(seen).items() if label != "o")
