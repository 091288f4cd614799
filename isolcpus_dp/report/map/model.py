"""What the picture of a host shows: the tree of its cores, and a mark for each of its CPUs.

Only what a Snapshot contains is shown. The colours carry no information that the labels lack.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Cpu, Machine
    from isolcpus_dp.report.snapshot import Owner, Snapshot

HOUSEKEEPING, FREE, NOT_OFFERED, OFFLINE, DISPUTED = ".", "o", "-", "x", "!"

# Background colours for black text, different from each other and from those of the states. After
# the last one the first is used again: the labels still differ.
OWNER_COLOURS = (
    "#5fafff",
    "#ffaf5f",
    "#af87ff",
    "#5fd7d7",
    "#ff87af",
    "#afd75f",
    "#d7af87",
    "#87afaf",
    "#ffd75f",
    "#d787d7",
)

LAST_LEVEL_CACHE = "last-level cache"
CORE_NOT_KNOWN = "core not known while offline"


@dataclass(frozen=True)
class Mark:
    """A line of the legend: a state or an owner, and the label of its CPUs."""

    label: str
    what: str
    cpus: frozenset[int]
    resource: str = ""
    colour: str = ""  # of an owner; states have fixed colours


@dataclass(frozen=True)
class Part:
    """Cores under one heading, which can be empty. A core is its CPUs in ascending order."""

    heading: str
    cores: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Node:
    """The part of a NUMA node that is in one package; `number` is None on a host without NUMA."""

    number: int | None
    parts: tuple[Part, ...]

    @property
    def heading(self) -> str:
        return "" if self.number is None else f"NUMA node {self.number}"


@dataclass(frozen=True)
class Package:
    """`number` is None for CPUs whose package is unknown."""

    number: int | None
    nodes: tuple[Node, ...]

    @property
    def heading(self) -> str:
        return "package not known" if self.number is None else f"package {self.number}"


def packages(machine: Machine) -> tuple[Package, ...]:
    """The host's cores by package, NUMA node and last-level cache."""
    found: dict[int | None, dict[int | None, list[Cpu]]] = {}
    for cpu in _cores(machine):
        nodes = found.setdefault(_package_of(machine, cpu), {})
        nodes.setdefault(cpu.node, []).append(cpu)
    return tuple(
        Package(
            package,
            tuple(Node(node, _parts(machine, found[package][node])) for node in _sorted(nodes)),
        )
        for package, nodes in ((package, found[package]) for package in _sorted(found))
    )


def marks(seen: Snapshot) -> tuple[Mark, ...]:
    """The legend: the states that occur, then the owners, ordered by their lowest CPUs."""
    online, isolated = seen.machine.online, seen.machine.isolated
    owned = frozenset[int]().union(*(owner.cpus for owner in seen.owners))
    offered = frozenset[int]().union(
        *(one.cpus for pool in seen.pools for one in pool.devices.values() if one.healthy)
    )
    not_owned = (online & isolated) - owned
    # If the kubelet could not be asked, a CPU that looks free may have an owner.
    free = "isolated, owner unknown" if seen.unseen else "isolated, free"
    states = (
        Mark(HOUSEKEEPING, "housekeeping", online - isolated - owned),
        Mark(FREE, free, not_owned & offered),
        Mark(NOT_OFFERED, "isolated, not offered", not_owned - offered),
        Mark(OFFLINE, "offline", seen.machine.present - online),
        Mark(DISPUTED, "owned by several", _disputed(seen.owners)),
    )
    return (*(state for state in states if state.cpus), *_owner_marks(seen.owners))


def mark_by_cpu(machine: Machine, legend: Iterable[Mark]) -> dict[int, Mark]:
    """The mark of each present CPU. Offline overrides several owners, which override the rest."""
    rank = {OFFLINE: 2, DISPUTED: 1}
    return {
        cpu: mark
        for mark in sorted(legend, key=lambda mark: rank.get(mark.label, 0))
        for cpu in mark.cpus & machine.present
    }


def labels() -> Iterator[str]:
    """A to Z, then the lower-case letters that are not a state, then AA, AB and so on."""
    yield from string.ascii_uppercase
    yield from (letter for letter in string.ascii_lowercase if letter not in (FREE, OFFLINE))
    for length in itertools.count(2):
        for letters in itertools.product(string.ascii_uppercase, repeat=length):
            yield "".join(letters)


def _owner_marks(owners: Iterable[Owner]) -> list[Mark]:
    """The marks of owners. A container has one label and colour for all of its resources."""
    looks = zip(labels(), itertools.cycle(OWNER_COLOURS))
    look_by_name: dict[str, tuple[str, str]] = {}
    found = []
    for owner in sorted(owners, key=_by_cpus):
        name = str(owner.allocation)
        if name not in look_by_name:
            look_by_name[name] = next(looks)
        label, colour = look_by_name[name]
        found.append(Mark(label, name, owner.cpus, owner.allocation.resource, colour))
    return found


def _by_cpus(owner: Owner) -> tuple[list[int], str, str]:
    return sorted(owner.cpus), str(owner.allocation), owner.allocation.resource


def _disputed(owners: Iterable[Owner]) -> frozenset[int]:
    """CPUs with several owners: some kubelets still report containers that have ended."""
    names_by_cpu: dict[int, set[str]] = {}
    for owner in owners:
        for cpu in owner.cpus:
            names_by_cpu.setdefault(cpu, set()).add(str(owner.allocation))
    return frozenset(cpu for cpu, names in names_by_cpu.items() if len(names) > 1)


def _cores(machine: Machine) -> list[Cpu]:
    """The lowest CPU of each core; the lowest online CPU if there is one.

    The cache of an offline CPU is as it was before the CPU went offline.
    """
    cores = {cpu.siblings & machine.present for cpu in machine.cpus.values()}
    lowest = (min(core & machine.online or core) for core in cores)
    return [machine.cpus[cpu] for cpu in sorted(lowest)]


def _package_of(machine: Machine, cpu: Cpu) -> int | None:
    """The package of a CPU. An offline CPU has that of its NUMA node, if the node has only one."""
    if cpu.placed:
        return cpu.package
    others = {one.package for one in machine.cpus.values() if one.placed and one.node == cpu.node}
    return others.pop() if len(others) == 1 else None


def _parts(machine: Machine, cores: Iterable[Cpu]) -> tuple[Part, ...]:
    """The cores of a NUMA node, by last-level cache.

    A cache of a single core is not drawn, because a core without cache information looks the
    same.
    """
    caches: dict[int, list[tuple[int, ...]]] = {}
    unplaced = []
    for cpu in cores:
        core = tuple(sorted(cpu.siblings & machine.present))
        if cpu.placed:
            # The set may still contain CPUs that are now offline, so the lowest online CPU
            # identifies the cache.
            caches.setdefault(min(cpu.cache & machine.online or cpu.cache), []).append(core)
        else:
            unplaced.append(core)
    shared = sorted(sorted(cores) for cores in caches.values() if len(cores) > 1)
    alone = sorted(core for cores in caches.values() if len(cores) == 1 for core in cores)
    parts = [Part(LAST_LEVEL_CACHE, tuple(cores)) for cores in shared]
    parts += [Part("", tuple(alone))] if alone else []
    parts += [Part(CORE_NOT_KNOWN, tuple(unplaced))] if unplaced else []
    return tuple(parts)


def _sorted(numbers: Iterable[int | None]) -> list[int | None]:
    return sorted(numbers, key=lambda number: (number is None, number))
