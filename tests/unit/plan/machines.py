"""Twelve made-up machines, each with what a plan needs to know about it."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from isolcpus_dp.host import machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.plan import survey
from isolcpus_dp.plan.part import Target
from isolcpus_dp.plan.survey import Known
from isolcpus_dp.plan.wish import Wish
from isolcpus_dp.report.check.start import facts
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, described, parse_shape, regular
from tests.unit.conftest import without_smt

DEBIAN = Target("debian", (6, 1), tuned=False)
EL = Target("el", (5, 14), tuned=False)


@dataclass(frozen=True)
class Case:
    """A machine, a wish, and which CPUs it isolates."""

    machine: Machine
    known: Known
    wish: Wish = field(default_factory=Wish)


def _case(tree: MadeUpMachine, wish: Wish | None = None) -> Case:
    read = machine.read(tree.root)
    release = tree.root / "os-release"
    release.write_text("ID=debian\nVERSION_ID=12\n")
    return Case(
        read,
        survey.of_machine(read, release, facts.numa_nodes(tree.root)),
        wish or Wish(),
    )


def _shape(text: str) -> Callable[[Path], Case]:
    return lambda root: _case(MadeUpMachine(root, parse_shape(text)))


def _eight_nodes(root: Path) -> Case:
    places = [
        replace(place, node=4 * place.package + place.core // 16) for place in regular(2, 64, 2)
    ]
    return _case(MadeUpMachine(root, places))


def _hybrid(root: Path) -> Case:
    """Eight P cores with two threads each, whose numbers are adjacent, and 16 E cores."""
    places = [Place(cpu, cpu // 2 if cpu < 16 else cpu - 8, 0, 0, 0) for cpu in range(32)]
    tree = MadeUpMachine(root, places)
    for name, cpus in (("cpu_core", "0-15"), ("cpu_atom", "16-31")):
        (root / "devices" / name).mkdir()
        (root / "devices" / name / "cpus").write_text(f"{cpus}\n")
    return _case(tree, Wish(core_type="performance"))


def _big_little(root: Path) -> Case:
    """Four little cores, then four big ones."""
    tree = MadeUpMachine(root, regular(1, 8, 1))
    for cpu in range(8):
        (tree.directory / f"cpu{cpu}/cpu_capacity").write_text(f"{446 if cpu < 4 else 1024}\n")
    return _case(tree, Wish(core_type="performance"))


def _offline(root: Path) -> Case:
    """CPU 21 is the sibling of CPU 5, CPU 7 that of CPU 23."""
    tree = MadeUpMachine(root, parse_shape("2x8x2"))
    tree.set_offline(21, 7)
    return _case(tree)


def _no_numa(root: Path) -> Case:
    tree = MadeUpMachine(root, parse_shape("1x8x2"))
    for link in tree.directory.glob("cpu*/node0"):
        link.rmdir()
    shutil.rmtree(root / "devices/system/node")
    return _case(tree)


def _more_nodes(*, memory: bool) -> Callable[[Path], Case]:
    """Nodes 2 to 9 have no CPUs."""

    def made(root: Path) -> Case:
        tree = MadeUpMachine(root, parse_shape("2x4x1"))
        nodes = root / "devices/system/node"
        last = 9 if memory else 2
        for node in range(2, last + 1):
            (nodes / f"node{node}").mkdir()
            (nodes / f"node{node}/distance").write_text(" ".join(["21"] * (last + 1)))
        (nodes / "online").write_text(f"0-{last}\n")
        (nodes / "has_memory").write_text(f"0-{last}\n" if memory else "0-1\n")
        return _case(tree)

    return made


def _huge(_root: Path) -> Case:
    large = described(parse_shape("16x64x2"))
    release = _root / "os-release"
    release.parent.mkdir(parents=True)
    release.write_text('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n')
    return Case(large, survey.of_machine(large, release, None))


MACHINES: dict[str, Callable[[Path], Case]] = {
    "1x4x1": _shape("1x4x1"),
    "2x16x2": _shape("2x16x2"),
    "2x64x2 with 8 nodes": _eight_nodes,
    "hybrid 8P+16E": _hybrid,
    "big.LITTLE": _big_little,
    "SMT off at boot": lambda root: _case(without_smt(MadeUpMachine(root, parse_shape("2x8x2")))),
    "offline CPUs": _offline,
    "no NUMA": _no_numa,
    "memory-only nodes": _more_nodes(memory=True),
    "a node without CPUs": _more_nodes(memory=False),
    "16 nodes": _shape("16x4x2"),
    "2048 CPUs": _huge,
}


@functools.cache
def case_of(name: str) -> Case:
    """A machine of MACHINES; its files are read once, and then removed."""
    with tempfile.TemporaryDirectory() as directory:
        return MACHINES[name](Path(directory) / "sys")
