"""Which CPUs are a core if sysfs contradicts itself, or shows only a part."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from isolcpus_dp import placement
from isolcpus_dp.host import probable, siblings
from isolcpus_dp.host.machine import Machine, is_current, read
from isolcpus_dp.report.map import model
from isolcpus_dp.simulator.machine import MadeUpMachine

from .conftest import MakeUp, without_smt
from .snapshots import look


def claim(made_up: MadeUpMachine, claims: dict[int, str]) -> None:
    for cpu, text in claims.items():
        (made_up.directory / f"cpu{cpu}/topology/core_cpus_list").write_text(f"{text}\n")


def cores(machine: Machine) -> list[set[int]]:
    return [set(core) for core in siblings.cores(machine)]


def test_cores_of_an_ordinary_host(make_up: MakeUp) -> None:
    machine = read(make_up("1x4x2", {2, 6}).root)
    assert cores(machine) == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    assert machine.conflicting == set()


def test_cpus_that_name_each_other_are_one_core(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", set())
    claim(made_up, {2: "2-3", 3: "3"})
    machine = read(made_up.root)
    assert cores(machine) == [{0, 4}, {1, 5}, {2, 3, 6, 7}]
    assert machine.conflicting == {2, 3, 6, 7}
    assert {machine.cpus[cpu].siblings for cpu in (2, 3, 6, 7)} == {frozenset({2, 3, 6, 7})}


def test_siblings_that_are_not_present_are_ignored(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", set())
    claim(made_up, {1: "1,9"})
    machine = read(made_up.root)
    assert machine.cpus[1].siblings == {1}
    assert machine.conflicting == set()


def test_offline_cpu_that_its_sibling_names_is_of_its_core(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 6})
    made_up.set_offline(6)
    claim(made_up, {2: "2,6"})
    machine = read(made_up.root)
    assert machine.conflicting == set()
    assert cores(machine) == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    assert machine.cpus[6] == replace(machine.cpus[2], cpu=6, online=False, cache=frozenset({6}))


def test_offline_cpu_that_its_sibling_names_is_in_no_other_core(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 6})
    made_up.set_offline(4, 5, 6, 7)
    claim(made_up, {1: "1,5", 3: "3,6"})  # the pattern of the first one has 6 beside 2
    for cpu in (1, 3):
        (made_up.directory / f"cpu{cpu}/topology/core_id").unlink()
    machine = read(made_up.root)
    assert cores(machine) == [{0}, {1, 5}, {2}, {3, 6}]
    host = probable.positions(machine)
    assert {one.siblings for one in host.cpus.values() if one.cpu in (1, 3, 5, 6)} == {
        frozenset({1, 5}),
        frozenset({3, 6}),
    }


def test_core_that_becomes_known_in_parts_is_one_core(make_up: MakeUp) -> None:
    made_up = make_up("1x2x3", set())  # 0, 2 and 4 are a core
    made_up.set_offline(0)
    first = read(made_up.root)
    made_up.set_online(0)
    made_up.set_offline(4)
    machine = read(made_up.root, first)
    assert cores(machine) == [{0, 2, 4}, {1, 3, 5}]
    assert machine.conflicting == set()


def test_contradiction_is_not_resolved_by_going_offline(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    claim(made_up, {2: "2-3"})
    before = read(made_up.root)
    made_up.set_offline(2)
    (made_up.directory / "cpu3/topology/core_cpus_list").write_text("3\n")
    machine = read(made_up.root, before)
    assert before.conflicting == machine.conflicting == {2, 3}
    assert read(made_up.root, machine).conflicting == {2, 3}


def test_machine_is_not_current_if_smt_is_switched(make_up: MakeUp) -> None:
    made_up = without_smt(make_up("1x4x2", set()))
    before = read(made_up.root)
    assert before.smt_off
    assert is_current(made_up.root, before)
    (made_up.directory / "smt/control").write_text("on\n")
    assert not is_current(made_up.root, before)


@pytest.mark.parametrize("text", ["on", "2", "notsupported", "notimplemented", ""])
def test_offline_cpus_are_not_switched_off_if_smt_is_not(make_up: MakeUp, text: str) -> None:
    made_up = without_smt(make_up("1x4x2", set()))
    (made_up.directory / "smt/control").write_text(f"{text}\n")
    assert siblings.switched_off(read(made_up.root)) == set()


@pytest.mark.parametrize("seed", range(30))
def test_contradicting_files_break_neither_placement_nor_map(make_up: MakeUp, seed: int) -> None:
    chance = random.Random(seed)
    made_up = make_up("2x2x2", {1, 2, 3, 5, 6, 7})
    for cpu in range(8):
        some = ",".join(map(str, chance.sample(range(9), chance.randint(0, 3))))
        caches = ",".join(map(str, chance.sample(range(9), chance.randint(0, 5))))
        claim(made_up, {cpu: some})
        (made_up.directory / f"cpu{cpu}/cache/index3/shared_cpu_list").write_text(f"{caches}\n")
    made_up.set_offline(*chance.sample(range(1, 8), chance.randint(0, 2)))
    machine = read(made_up.root)
    available = machine.isolated & machine.online
    for size in range(1, len(available) + 1):
        chosen = placement.choose(machine, available, frozenset({min(available)}), size)
        assert len(chosen) == size
        assert chosen <= available
    assert model.marks(look(machine))
    drawn = [
        cpu
        for package in model.packages(machine)
        for node in package.nodes
        for part in node.parts
        for core in part.cores
        for cpu in core
    ]
    assert sorted(drawn) == list(range(8))
