"""Simulated machines: a directory with the layout of /sys, for CPUs that do not exist."""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.machine import Cpu, Machine


@dataclass(frozen=True)
class Place:
    """The position of one CPU of a simulated machine."""

    cpu: int
    core: int
    package: int
    cache: int  # the same number for all CPUs that share a last-level cache
    node: int


def regular(packages: int, cores: int, threads: int) -> tuple[Place, ...]:
    """A regular machine with the CPU numbers of most servers.

    The first threads of all cores come first: on 2x16x2, CPU 34 is the sibling of CPU 2. Every
    package is a NUMA node and has one last-level cache.
    """
    return tuple(
        Place(
            cpu=thread * packages * cores + package * cores + core,
            core=core,
            package=package,
            cache=package,
            node=package,
        )
        for thread in range(threads)
        for package in range(packages)
        for core in range(cores)
    )


def parse_shape(text: str) -> tuple[Place, ...]:
    """The regular machine of `2x8x2`: packages x cores x threads. Raises ValueError."""
    match = re.fullmatch(r"([1-9][0-9]{0,2})x([1-9][0-9]{0,2})x([1-9])", text)
    if not match:
        raise ValueError(
            f"'{text}' is not a machine: use packages x cores x threads, such as 2x8x2"
        )
    packages, cores, threads = (int(number) for number in match.groups())
    if packages * cores * threads > cpulist.MOST_CPUS:
        raise ValueError(f"'{text}' has more than {cpulist.MOST_CPUS} CPUs")
    return regular(packages, cores, threads)


def described(places: Iterable[Place], isolated: Iterable[int] = ()) -> Machine:
    """The Machine that is read from a MadeUpMachine, without the files: these are thousands."""
    by_cpu = {place.cpu: place for place in places}
    cores, caches = defaultdict(set), defaultdict(set)
    for cpu, place in by_cpu.items():
        cores[place.package, place.core].add(cpu)
        caches[place.package, place.cache].add(cpu)
    cores_of = {key: frozenset(cpus) for key, cpus in cores.items()}
    caches_of = {key: frozenset(cpus) for key, cpus in caches.items()}
    nodes = sorted({place.node for place in by_cpu.values()})
    everything = frozenset(by_cpu)
    return Machine(
        possible=everything,
        present=everything,
        online=everything,
        isolated=frozenset(isolated),
        cpus={
            cpu: Cpu(
                cpu=cpu,
                online=True,
                core=place.core,
                siblings=cores_of[place.package, place.core],
                package=place.package,
                die=0,
                cache=caches_of[place.package, place.cache],
                node=place.node,
            )
            for cpu, place in sorted(by_cpu.items())
        },
        distances={(one, other): 10 if one == other else 21 for one in nodes for other in nodes},
    )


class MadeUpMachine:
    """A simulated machine; its files are written to the directory `root`."""

    def __init__(
        self,
        root: Path,
        places: Iterable[Place],
        isolated: Iterable[int] = (),
        distances: Mapping[tuple[int, int], int] | None = None,
    ) -> None:
        """`distances` has pairs of NUMA nodes, lower first, whose distance is not the usual 21."""
        self.root = root
        self.directory = root / "devices" / "system" / "cpu"
        self._places = {place.cpu: place for place in places}
        self._online = set(self._places)
        self._cores = _groups(self._places.values(), lambda place: (place.package, place.core))
        self._caches = _groups(self._places.values(), lambda place: (place.package, place.cache))
        self._write("possible", self._places)
        self._write("present", self._places)
        self._write("isolated", isolated)
        for cpu, place in self._places.items():
            (self.directory / f"cpu{cpu}" / f"node{place.node}").mkdir(parents=True)
            self._write_topology(cpu)
        self._write("online", self._online)
        self._write_nodes(distances or {})

    def set_offline(self, *cpus: int) -> None:
        """Takes CPUs offline, and removes the files that the kernel removes."""
        self._online -= set(cpus)
        self._change(cpus)

    def set_online(self, *cpus: int) -> None:
        """Brings CPUs online again."""
        self._online |= set(cpus)
        self._change(cpus)

    def _change(self, cpus: Iterable[int]) -> None:
        for sharing in {other for cpu in cpus for other in self._caches[cpu]}:
            self._write_topology(sharing)
        self._write("online", self._online)

    def _write_topology(self, cpu: int) -> None:
        directory, place = self.directory / f"cpu{cpu}", self._places[cpu]
        if cpu not in self._online:
            for name in ("topology", "cache"):
                shutil.rmtree(directory / name, ignore_errors=True)
            return
        siblings = self._cores[cpu]
        self._write(f"cpu{cpu}/topology/core_cpus_list", siblings & self._online)
        for name, number in (("core_id", place.core), ("physical_package_id", place.package)):
            self._write_text(f"cpu{cpu}/topology/{name}", str(number))
        self._write_text(f"cpu{cpu}/topology/die_id", "0")
        self._write_text(f"cpu{cpu}/cache/index0/level", "1")
        self._write(f"cpu{cpu}/cache/index0/shared_cpu_list", siblings & self._online)
        self._write_text(f"cpu{cpu}/cache/index3/level", "3")
        shared = self._caches[cpu] & self._online
        self._write(f"cpu{cpu}/cache/index3/shared_cpu_list", shared)

    def _write_nodes(self, distances: Mapping[tuple[int, int], int]) -> None:
        nodes = sorted({place.node for place in self._places.values()})
        self._write("../node/online", nodes)
        self._write("../node/has_memory", nodes)
        for node in nodes:
            row = (
                10 if node == other else distances.get((min(node, other), max(node, other)), 21)
                for other in nodes
            )
            self._write_text(f"../node/node{node}/distance", " ".join(map(str, row)))

    def _write(self, name: str, cpus: Iterable[int]) -> None:
        self._write_text(name, cpulist.render(cpus))

    def _write_text(self, name: str, text: str) -> None:
        # Renamed into place, so that a reader never sees an incomplete file.
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        temporary.write_text(f"{text}\n")
        temporary.rename(path)


def _groups(places: Iterable[Place], part: Callable[[Place], object]) -> dict[int, set[int]]:
    """By CPU: all CPUs in the same part of the machine."""
    groups: dict[object, set[int]] = {}
    by_cpu = {place.cpu: groups.setdefault(part(place), set()) for place in places}
    for cpu, group in by_cpu.items():
        group.add(cpu)
    return by_cpu
