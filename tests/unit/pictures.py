"""Picture files read back as a viewer reads them, and the machines to draw."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from isolcpus_dp import machine
from isolcpus_dp.config import PoolConfig
from isolcpus_dp.podresources import Allocation
from isolcpus_dp.report.map import svg
from isolcpus_dp.report.snapshot import Owner, Snapshot
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, regular

from .snapshots import RESOURCE, big, look, owner

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
    """The groups of a class, such as the threads."""
    return [group for group in root.iter(f"{NAMESPACE}g") if group.get("class") == kind]


def tooltip(group: ET.Element) -> str:
    title = group.find(f"{NAMESPACE}title")
    assert title is not None
    return title.text or ""


def texts(group: ET.Element) -> list[str]:
    return [element.text or "" for element in group.iter(f"{NAMESPACE}text")]


def rectangle(group: ET.Element) -> Rectangle | None:
    """The group's own."""
    found = group.find(f"{NAMESPACE}rect")
    if found is None:
        return None
    return Rectangle(*(float(found.get(name, "")) for name in ("x", "y", "width", "height")))


def children(group: ET.Element) -> Iterator[tuple[ET.Element, Rectangle]]:
    """The nearest groups below that have a rectangle."""
    for child in group.findall(f"{NAMESPACE}g"):
        own = rectangle(child)
        if own:
            yield child, own
        else:
            yield from children(child)


def cpus_drawn(root: ET.Element) -> list[str]:
    """The label and the number of every thread, in ascending order of the numbers."""
    drawn = (texts(thread) for thread in all_of(root, "thread"))
    return [f"{label} {cpu}" for label, cpu in sorted(drawn, key=lambda text: int(text[1]))]


def on_8_cpus(folder: Path) -> Snapshot:
    host = machine.read(MadeUpMachine(folder, regular(1, 4, 2), {1, 2, 3, 5, 6, 7}).root)
    return look(host, owner("forwarder", 1, 5))


def on_128_cpus(folder: Path) -> Snapshot:
    pods = (owner(f"pod-{at}", *range(at, at + 4), *range(at + 64, at + 68)) for at in (1, 9, 33))
    return look(big(folder, (2, 32, 2)), *pods)


def on_512_cpus(folder: Path) -> Snapshot:
    places = [
        replace(place, cache=place.core // 8, node=place.package * 4 + place.core // 32)
        for place in regular(2, 128, 2)
    ]
    host = machine.read(MadeUpMachine(folder, places, range(8, 512)).root)
    return look(host, *(owner(f"pod-{at}", at, at + 256) for at in range(8, 68)))


def on_a_hybrid_machine(folder: Path) -> Snapshot:
    """Six cores with two threads, then eight with one."""
    places = [Place(cpu, cpu // 2, 0, 0, 0) for cpu in range(12)]
    places += [Place(cpu, cpu, 0, 0, 0) for cpu in range(12, 20)]
    host = machine.read(MadeUpMachine(folder, places, range(2, 20)).root)
    return look(host, owner("forwarder", 4, 5), owner("camera", 12, 13))


def with_offline_cpus(folder: Path) -> Snapshot:
    made_up = MadeUpMachine(folder, regular(2, 4, 2), {1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15})
    made_up.set_offline(3, 11, 13)
    config = PoolConfig(cpus=frozenset({1, 2, 9, 10, 11}))
    disputed = owner("ended", 1, 9), owner("new", 9, 10)
    return look(machine.read(made_up.root), *disputed, config=config)


def without_numa_caches_and_packages(folder: Path) -> Snapshot:
    host = machine.read(MadeUpMachine(folder, regular(1, 16, 1), {1}).root)
    bare = {
        cpu: replace(one, package=None, node=None, cache=frozenset({cpu}))
        for cpu, one in host.cpus.items()
    }
    return look(replace(host, cpus=bare), unseen=("who owns which CPU: there is no socket",) * 3)


def on_uneven_nodes(folder: Path) -> Snapshot:
    """Five nodes of a package, the last one with a single core; nine threads to a core."""
    places = [replace(p, node=p.core // 3, cache=p.core // 3) for p in regular(1, 13, 9)]
    return look(machine.read(MadeUpMachine(folder, places).root))


def on_many_sockets(folder: Path) -> Snapshot:
    """As virtual machines have them, with an owner for each."""
    host = machine.read(MadeUpMachine(folder, regular(64, 1, 1), range(64)).root)
    return look(host, *(owner(f"pod{cpu}", cpu) for cpu in range(64)))


def with_long_names(folder: Path) -> Snapshot:
    long = Allocation("n" * 63, "p" * 253, "c" * 63, f"{'r' * 253}/isolcpus", ())
    wide = Allocation("名" * 40, "W" * 60, "m", RESOURCE, ())
    host = big(folder, (2, 32, 2))
    return look(host, Owner(long, frozenset(range(1, 32, 2))), Owner(wide, frozenset({2, 66})))


EVERY_MACHINE = (
    on_8_cpus,
    on_128_cpus,
    on_512_cpus,
    on_a_hybrid_machine,
    with_offline_cpus,
    without_numa_caches_and_packages,
    on_uneven_nodes,
    on_many_sockets,
    with_long_names,
)
every_machine = pytest.mark.parametrize("seen_on", EVERY_MACHINE)
Seen = Callable[[Path], Snapshot]
