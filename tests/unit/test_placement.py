"""Which CPUs a container gets: cores stay whole, NUMA nodes are few."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolcpus_dp import machine
from isolcpus_dp.machine import Cpu, Machine
from isolcpus_dp.placement import choose
from isolcpus_dp.simulator.machine import MadeUpMachine, parse_shape

from .conftest import MakeUp

NONE: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Two NUMA nodes, {0-3,8-11} and {4-7,12-15}; CPU 8 is the sibling of 0, 15 that of 7."""
    made_up = MadeUpMachine(tmp_path_factory.mktemp("sys"), parse_shape("2x4x2"), range(16))
    return machine.read(made_up.root)


def chosen(host: Machine, available: set[int], must: set[int], size: int) -> set[int]:
    return set(choose(host, frozenset(available), frozenset(must), size))


def test_siblings_stay_together(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 2) == {0, 8}
    assert chosen(host, set(range(16)), set(), 4) == {0, 1, 8, 9}


def test_siblings_stay_together_where_all_is_needed_of_a_node(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 8) == {0, 1, 2, 3, 8, 9, 10, 11}


def test_whole_cores_go_before_lone_threads(host: Machine) -> None:
    assert chosen(host, {0, 1, 2, 10}, set(), 2) == {2, 10}


def test_one_numa_node_is_enough_even_if_it_is_the_second(host: Machine) -> None:
    assert chosen(host, {0, 1, 8, 4, 5, 6, 12, 13, 14}, set(), 4) == {4, 5, 12, 13}


def test_one_numa_node_goes_before_whole_cores(host: Machine) -> None:
    assert chosen(host, {0, 8, 4, 5, 6}, set(), 3) == {4, 5, 6}


def test_more_than_a_numa_node_has_takes_all_of_one_and_a_core_of_the_other(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 10) == {0, 1, 2, 3, 8, 9, 10, 11, 4, 12}


def test_smallest_hole_that_fits_is_filled(host: Machine) -> None:
    assert chosen(host, {0, 1, 8, 9, *range(4, 8), *range(12, 16)}, set(), 4) == {0, 1, 8, 9}
    assert chosen(host, {*range(4), *range(8, 12), 4, 5, 12, 13}, set(), 4) == {4, 5, 12, 13}


def test_lone_thread_goes_before_a_whole_core_is_broken(host: Machine) -> None:
    assert chosen(host, {0, 8, 1}, set(), 1) == {1}
    assert chosen(host, {0, 8, 1, 9, 2}, set(), 3) == {0, 8, 2}


def test_whole_core_is_broken_if_there_is_no_lone_thread(host: Machine) -> None:
    assert chosen(host, {0, 8, 1, 9}, set(), 3) == {0, 8, 1}


def test_sibling_of_what_must_be_included_comes_first(host: Machine) -> None:
    assert chosen(host, set(range(16)), {13}, 2) == {5, 13}
    assert chosen(host, set(range(16)), {5, 6}, 4) == {5, 6, 13, 14}


def test_numa_node_of_what_must_be_included_comes_first(host: Machine) -> None:
    assert chosen(host, set(range(16)), {7}, 4) == {4, 7, 12, 15}
    assert chosen(host, {*range(4), *range(8, 12), 5, 7}, {7}, 3) == {0, 5, 7}


def test_nothing_is_added_to_what_must_be_included_if_that_is_enough(host: Machine) -> None:
    assert chosen(host, set(range(16)), {0, 7}, 2) == {0, 7}


def test_all_that_is_available(host: Machine) -> None:
    assert chosen(host, {1, 7, 12}, {1}, 3) == {1, 7, 12}


def test_four_threads_of_a_core_stay_together(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x4", set(range(16))).root)
    assert chosen(host, set(range(16)), set(), 4) == {0, 4, 8, 12}
    assert chosen(host, {0, 4, 8, 12, 1, 5}, set(), 2) == {1, 5}


def test_broken_core_of_four_threads_is_broken_further_before_a_whole_one(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x4", set(range(16))).root)
    assert chosen(host, {0, 4, 8, 12, 1, 5, 9}, set(), 2) == {1, 5}


def test_host_that_tells_nothing_of_itself(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {0, 1, 2, 3})
    for cpu in range(4):
        (made_up.folder / f"cpu{cpu}/node0").rmdir()
        (made_up.folder / f"cpu{cpu}/topology/core_cpus_list").unlink()
    assert chosen(machine.read(made_up.root), {0, 1, 2, 3}, {2}, 3) == {0, 1, 2}


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    """Cores of one or two threads, strewn over NUMA nodes; one of them may have no number."""
    cores = draw(
        st.lists(
            st.tuples(st.integers(1, 2), st.sampled_from([None, 0, 1, 8])), min_size=1, max_size=10
        )
    )
    cpus: dict[int, Cpu] = {}
    for core, (threads, node) in enumerate(cores):
        siblings = frozenset(range(len(cpus), len(cpus) + threads))
        for cpu in siblings:
            cpus[cpu] = Cpu(
                cpu=cpu,
                online=True,
                core=core,
                siblings=siblings,
                package=0,
                die=0,
                cache=siblings,
                node=node,
            )
    everything = frozenset(cpus)
    return Machine(
        possible=everything, present=everything, online=everything, isolated=everything, cpus=cpus
    )


def available_cpus(host: Machine) -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.sampled_from(sorted(host.cpus)), min_size=1)


def fewest_nodes(host: Machine, available: frozenset[int], size: int) -> int:
    """The least number of NUMA nodes that hold `size` available CPUs: every choice is tried."""
    held = Counter(host.cpus[cpu].node for cpu in available)
    return next(
        count
        for count in range(len(held) + 1)
        for nodes in itertools.combinations(held, count)
        if sum(held[node] for node in nodes) >= size
    )


@given(st.data())
def test_choice_is_complete_and_within_what_is_available(data: st.DataObject) -> None:
    host = data.draw(machines())
    available = data.draw(available_cpus(host))
    must = data.draw(st.frozensets(st.sampled_from(sorted(available))))
    size = data.draw(st.integers(len(must), len(available)))
    result = choose(host, available, must, size)
    assert must <= result <= available
    assert len(result) == size


@given(st.data())
def test_choice_lies_on_the_fewest_numa_nodes(data: st.DataObject) -> None:
    host = data.draw(machines())
    available = data.draw(available_cpus(host))
    size = data.draw(st.integers(1, len(available)))
    result = choose(host, available, NONE, size)
    touched = {host.cpus[cpu].node for cpu in result}
    assert len(touched) == fewest_nodes(host, available, size)


@given(st.data())
def test_choice_breaks_at_most_one_core(data: st.DataObject) -> None:
    host = data.draw(machines())
    available = data.draw(available_cpus(host))
    size = data.draw(st.integers(1, len(available)))
    result = choose(host, available, NONE, size)
    cores = {host.cpus[cpu].siblings & available for cpu in available}
    assert sum(1 for core in cores if core & result and core - result) <= 1
