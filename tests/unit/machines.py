"""Twelve unlike machines, as trees laid out like /sys.

On each, all cores are isolated but the first one of every NUMA node with CPUs. `build` writes a
machine; `read` and `nodes` read it, and are cached.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.host.machine import Cpu, Machine
from isolcpus_dp.report.check.start import facts
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, described, regular
from tests.unit.conftest import without_smt


def _all_but_the_first_core_of_a_node(places: Iterable[Place]) -> set[int]:
    first: dict[int, tuple[int, int]] = {}
    isolated = set()
    for place in sorted(places, key=lambda place: place.cpu):
        core = (place.package, place.core)
        if first.setdefault(place.node, core) != core:
            isolated.add(place.cpu)
    return isolated


def _made_up(
    root: Path,
    places: Iterable[Place],
    distances: Mapping[tuple[int, int], int] | None = None,
) -> MadeUpMachine:
    places = tuple(places)
    return MadeUpMachine(root, places, _all_but_the_first_core_of_a_node(places), distances)


def _write(made_up: MadeUpMachine, name: str, text: str) -> None:
    path = made_up.root / "devices" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def small(root: Path) -> MadeUpMachine:
    """One package of four cores without SMT."""
    return _made_up(root, regular(1, 4, 1))


def two_packages(root: Path) -> MadeUpMachine:
    """Two packages of 16 cores with two threads; CPU 34 is the sibling of CPU 2."""
    return _made_up(root, regular(2, 16, 2))


def eight_nodes(root: Path) -> MadeUpMachine:
    """Two packages of 64 cores, four NUMA nodes each; eight cores share a cache."""
    places = [
        replace(place, node=4 * place.package + place.core // 16, cache=place.core // 8)
        for place in regular(2, 64, 2)
    ]
    distances = {
        (one, other): 12 if one // 4 == other // 4 else 32
        for one in range(8)
        for other in range(one + 1, 8)
    }
    return _made_up(root, places, distances)


def hybrid(root: Path) -> MadeUpMachine:
    """Eight P cores with two threads, CPUs 0-15, and sixteen E cores, CPUs 16-31 (x86)."""
    places = [Place(cpu, cpu // 2, 0, 0, 0) for cpu in range(16)]
    places += [Place(cpu, cpu, 0, 0, 0) for cpu in range(16, 32)]
    made_up = _made_up(root, places)
    _write(made_up, "cpu_core/cpus", "0-15")
    _write(made_up, "cpu_atom/cpus", "16-31")
    return made_up


def big_little(root: Path) -> MadeUpMachine:
    """Four small cores, CPUs 0-3, and four big ones, CPUs 4-7 (Arm)."""
    made_up = _made_up(root, regular(1, 8, 1))
    for cpu in range(8):
        _write(made_up, f"system/cpu/cpu{cpu}/cpu_capacity", "446" if cpu < 4 else "1024")
    return made_up


def smt_off(root: Path) -> MadeUpMachine:
    """Two packages of eight cores with two threads, booted with nosmt: CPUs 16-31 are offline."""
    return without_smt(_made_up(root, regular(2, 8, 2)))


def offline(root: Path) -> MadeUpMachine:
    """Two packages of eight cores with two threads.

    Offline are CPU 21, the sibling of CPU 5, CPU 7, that of CPU 23, and a core, CPUs 10 and 26.
    """
    made_up = _made_up(root, regular(2, 8, 2))
    made_up.set_offline(7, 10, 21, 26)
    return made_up


def without_numa(root: Path) -> MadeUpMachine:
    """Eight cores with two threads, and a kernel without NUMA."""
    made_up = _made_up(root, regular(1, 8, 2))
    for cpu in range(16):
        (made_up.directory / f"cpu{cpu}/node0").rmdir()
    nodes = made_up.root / "devices/system/node"
    for name in ("online", "has_memory", "node0/distance"):
        (nodes / name).unlink()
    (nodes / "node0").rmdir()
    nodes.rmdir()
    return made_up


def memory_only_nodes(root: Path) -> MadeUpMachine:
    """Two packages of eight cores with two threads on nodes 0-1, and memory on nodes 2-9.

    That of even nodes is near node 0.
    """
    made_up = _made_up(root, regular(2, 8, 2))

    def distance(one: int, other: int) -> int:
        low, high = sorted((one, other))
        if low == high:
            return 10
        if low > 1:
            return 26
        return 21 if high == 1 else 14 if high % 2 == low else 24

    rows = [" ".join(str(distance(one, other)) for other in range(10)) for one in range(10)]
    _add_nodes(made_up, rows, range(10))
    return made_up


def node_without_cpus(root: Path) -> MadeUpMachine:
    """Two packages of eight cores with two threads on nodes 0 and 2; node 1 has neither CPUs nor
    memory."""
    places = [replace(place, node=2 * place.package) for place in regular(2, 8, 2)]
    made_up = _made_up(root, places)
    _add_nodes(made_up, ["10 21 21", "21 10 21", "21 21 10"], (0, 2))
    return made_up


def _add_nodes(made_up: MadeUpMachine, distances: list[str], with_memory: Iterable[int]) -> None:
    """All nodes; of CPUs, they have those that they had."""
    _write(made_up, "system/node/online", cpulist.render(range(len(distances))))
    _write(made_up, "system/node/has_memory", cpulist.render(with_memory))
    for node, row in enumerate(distances):
        _write(made_up, f"system/node/node{node}/distance", row)


def sixteen_nodes(root: Path) -> MadeUpMachine:
    """Two packages of 64 cores with two threads; each cache of eight cores is a NUMA node."""
    places = [
        replace(place, node=8 * place.package + place.core // 8, cache=place.core // 8)
        for place in regular(2, 64, 2)
    ]
    distances = {
        (one, other): 11 if one // 8 == other // 8 else 32
        for one in range(16)
        for other in range(one + 1, 16)
    }
    return _made_up(root, places, distances)


_LARGEST = regular(16, 64, 2)


def largest(root: Path) -> MadeUpMachine:
    """2048 CPUs: sixteen packages of 64 cores with two threads."""
    return _made_up(root, _LARGEST)


MACHINES: Mapping[str, Callable[[Path], MadeUpMachine]] = {
    "1x4x1": small,
    "2x16x2": two_packages,
    "2x64x2 with 8 nodes": eight_nodes,
    "hybrid 8P+16E": hybrid,
    "big.LITTLE": big_little,
    "SMT off at boot": smt_off,
    "offline CPUs": offline,
    "no NUMA": without_numa,
    "memory-only nodes": memory_only_nodes,
    "a node without CPUs": node_without_cpus,
    "16 nodes": sixteen_nodes,
    "2048 CPUs": largest,
}


def build(name: str, root: Path) -> MadeUpMachine:
    """Writes a machine to a directory."""
    return MACHINES[name](root)


def read(name: str) -> Machine:
    """A machine; its files are removed."""
    return _seen(name)[0]


def nodes(name: str) -> frozenset[int]:
    """The NUMA nodes of a machine that the kubelet counts, also those without CPUs."""
    return _seen(name)[1]


@functools.cache
def _seen(name: str) -> tuple[Machine, frozenset[int]]:
    if MACHINES[name] is largest:  # without its files, which are many
        return described(_LARGEST, _all_but_the_first_core_of_a_node(_LARGEST)), frozenset(
            range(16)
        )
    with tempfile.TemporaryDirectory() as directory:
        root = build(name, Path(directory)).root
        return machine.read(root), facts.numa_nodes(root)


def without(host: Machine, offline: Iterable[int]) -> Machine:
    """The machine as it is read if these CPUs of it were offline at every reading.

    Without files, so that it is fast. Types are hidden only on a machine with two of them.
    """
    gone = frozenset(offline) & host.online
    hybrid = len({one.core_type for one in host.cpus.values()}) > 1

    def seen(one: Cpu) -> Cpu:
        if one.cpu not in gone:
            return replace(one, siblings=one.siblings - gone, cache=one.cache - gone)
        own = frozenset({one.cpu})
        core_type = None if hybrid else one.core_type
        return Cpu(
            one.cpu,
            online=False,
            core=None,
            siblings=own,
            package=None,
            die=None,
            cache=own,
            node=one.node,
            core_type=core_type,
        )

    cpus = {cpu: seen(one) for cpu, one in host.cpus.items()}
    return replace(host, online=host.online - gone, cpus=cpus)
