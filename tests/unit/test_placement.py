"""Which CPUs a container gets, by example. The proof is in test_placement_proof.py."""

from __future__ import annotations

import itertools
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp.config import Placement
from isolcpus_dp.host import machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.placement import choose
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, parse_shape

from .conftest import MakeUp


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Two NUMA nodes, CPUs 0-3,8-11 and 4-7,12-15; 8 is the sibling of 0, 15 that of 7."""
    made_up = MadeUpMachine(tmp_path_factory.mktemp("sys"), parse_shape("2x4x2"), range(16))
    return machine.read(made_up.root)


def chosen(
    host: Machine, available: set[int], must: set[int], size: int, placement: Placement = "packed"
) -> set[int]:
    return set(choose(host, frozenset(available), frozenset(must), size, placement))


def test_siblings_stay_together(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 2) == {0, 8}
    assert chosen(host, set(range(16)), set(), 4) == {0, 1, 8, 9}


def test_size_of_a_node_takes_the_whole_node(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 8) == {0, 1, 2, 3, 8, 9, 10, 11}


def test_whole_core_is_preferred_to_single_threads(host: Machine) -> None:
    assert chosen(host, {0, 1, 2, 10}, set(), 2) == {2, 10}


def test_single_numa_node_is_used_even_if_it_is_the_second(host: Machine) -> None:
    assert chosen(host, {0, 1, 8, 4, 5, 6, 12, 13, 14}, set(), 4) == {4, 5, 12, 13}


def test_single_numa_node_is_preferred_to_whole_cores(host: Machine) -> None:
    assert chosen(host, {0, 8, 4, 5, 6}, set(), 3) == {4, 5, 6}


def test_more_than_a_numa_node_takes_one_node_and_a_core(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 10) == {0, 1, 2, 3, 8, 9, 10, 11, 4, 12}


def test_numa_node_with_the_fewest_cpus_that_fit_is_used(host: Machine) -> None:
    assert chosen(host, {0, 1, 8, 9, *range(4, 8), *range(12, 16)}, set(), 4) == {0, 1, 8, 9}
    assert chosen(host, {*range(4), *range(8, 12), 4, 5, 12, 13}, set(), 4) == {4, 5, 12, 13}


def test_single_thread_is_preferred_to_part_of_a_core(host: Machine) -> None:
    assert chosen(host, {0, 8, 1}, set(), 1) == {1}
    assert chosen(host, {0, 8, 1, 9, 2}, set(), 3) == {0, 8, 2}


def test_core_is_split_if_there_is_no_single_thread(host: Machine) -> None:
    assert chosen(host, {0, 8, 1, 9}, set(), 3) == {0, 8, 1}


def test_siblings_of_required_cpus_are_added_first(host: Machine) -> None:
    assert chosen(host, set(range(16)), {13}, 2) == {5, 13}
    assert chosen(host, set(range(16)), {5, 6}, 4) == {5, 6, 13, 14}


def test_numa_node_of_required_cpus_is_used_first(host: Machine) -> None:
    assert chosen(host, set(range(16)), {7}, 4) == {4, 7, 12, 15}
    assert chosen(host, {*range(4), *range(8, 12), 5, 7}, {7}, 3) == {0, 7, 8}


def test_nothing_is_added_if_all_cpus_are_required(host: Machine) -> None:
    assert chosen(host, set(range(16)), {0, 7}, 2) == {0, 7}


def test_all_available_cpus_are_chosen_if_needed(host: Machine) -> None:
    assert chosen(host, {1, 7, 12}, {1}, 3) == {1, 7, 12}


def test_four_threads_of_a_core_stay_together(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x4", set(range(16))).root)
    assert chosen(host, set(range(16)), set(), 4) == {0, 4, 8, 12}
    assert chosen(host, {0, 4, 8, 12, 1, 5}, set(), 2) == {1, 5}
    assert chosen(host, {0, 4, 8, 12, 1, 5, 9}, set(), 3) == {1, 5, 9}


def test_machine_without_topology(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {0, 1, 2, 3})
    for cpu in range(4):
        (made_up.directory / f"cpu{cpu}/node0").rmdir()
        (made_up.directory / f"cpu{cpu}/topology/core_cpus_list").unlink()
    assert chosen(machine.read(made_up.root), {0, 1, 2, 3}, {2}, 3) == {0, 1, 2}


# The order that StarlingX documents for its patch: pairs of siblings first; for an odd size, a
# thread whose sibling is not available before a pair is split.


@pytest.mark.parametrize("size", [2, 4, 6])
def test_even_size_takes_pairs_as_starlingx_does(host: Machine, size: int) -> None:
    available = {0, 1, 8, 9, 2, 10, 3, 11}
    for gone in ({0}, {9}, {2}, {0, 9}):
        taken = chosen(host, available - gone, set(), size)
        pairs = [pair for pair in ({0, 8}, {1, 9}, {2, 10}, {3, 11}) if not pair & gone]
        if size <= 2 * len(pairs):
            assert all(pair <= taken or not pair & taken for pair in pairs)
            assert len(taken) == size
            assert taken <= set().union(*pairs)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(1, {9}), (3, {0, 8, 9}), (5, {0, 8, 9, 2, 10}), (7, {0, 8, 9, 2, 10, 3, 11})],
)
def test_odd_size_takes_a_single_thread_as_starlingx_does(
    host: Machine, size: int, expected: set[int]
) -> None:
    assert chosen(host, {0, 8, 9, 2, 10, 3, 11}, set(), size) == expected


def test_odd_size_splits_a_pair_if_there_is_no_single_thread(host: Machine) -> None:
    assert chosen(host, {0, 8, 1, 9}, set(), 1) == {0}


# Caches and distances


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """One NUMA node, three caches of two cores of two threads; CPU 6 is the sibling of 0."""
    places = [
        Place(cpu=cpu, core=cpu % 6, package=0, cache=cpu % 6 // 2, node=0) for cpu in range(12)
    ]
    return machine.read(MadeUpMachine(tmp_path_factory.mktemp("sys"), places, range(12)).root)


def test_single_cache_is_used_if_it_has_room(caches: Machine) -> None:
    # Cores 0 and 1 are on the first cache, 2 and 3 on the second.
    assert chosen(caches, set(range(12)) - {0, 6}, set(), 4) == {2, 3, 8, 9}


def test_single_cache_is_preferred_to_whole_cores(caches: Machine) -> None:
    assert chosen(caches, {0, 6, 2, 3, 4}, set(), 2) == {0, 6}
    assert chosen(caches, {0, 2, 8, 4, 5, 10}, set(), 3) == {4, 5, 10}


def test_cache_with_the_fewest_cpus_that_fit_is_used(caches: Machine) -> None:
    assert chosen(caches, set(range(12)) - {0, 4, 10}, set(), 2) == {5, 11}


def test_near_nodes_are_preferred(tmp_path: Path) -> None:
    """Nodes 0 and 2 are near each other, nodes 1 and 3 as well."""
    near = {(0, 2): 12, (1, 3): 12}
    tree = MadeUpMachine(tmp_path, parse_shape("4x2x1"), range(8), near)
    host = machine.read(tree.root)
    assert chosen(host, set(range(8)), set(), 4) == {0, 1, 4, 5}
    assert chosen(host, set(range(8)) - {0}, set(), 4) == {2, 3, 6, 7}
    assert chosen(host, set(range(8)), {3}, 3) == {2, 3, 6}


# Many nodes with one last-level cache each, as with the firmware option "L3 cache as NUMA domain"


def many_nodes(
    root: Path, nodes: int, cpus: int, distances: dict[tuple[int, int], int] | None = None
) -> Machine:
    """Nodes of equal size, by CPU number; CPUs 0 and 1 are siblings, 2 and 3, and so on."""
    places = [
        Place(cpu=cpu, core=cpu // 2, package=0, cache=cpu // cpus, node=cpu // cpus)
        for cpu in range(nodes * cpus)
    ]
    return machine.read(MadeUpMachine(root, places, range(nodes * cpus), distances).root)


def on_two_sockets(nodes: int) -> dict[tuple[int, int], int]:
    return {
        (one, other): 11 if one // (nodes // 2) == other // (nodes // 2) else 32
        for one, other in itertools.combinations(range(nodes), 2)
    }


@pytest.mark.parametrize("placement", ["packed", "spread"])
def test_nodes_of_one_socket_are_preferred(tmp_path: Path, placement: Placement) -> None:
    host = many_nodes(tmp_path, 24, 2, on_two_sockets(24))
    # Nodes 12 to 23 are the second socket. Of the first one, nodes 5 to 11 have CPUs.
    room = set(range(10, 48))
    assert chosen(host, room, set(), 14, placement) == set(range(10, 24))
    assert chosen(host, room, set(), 16, placement) == set(range(24, 40))
    assert chosen(host, room, {46}, 10, placement) == {*range(24, 32), 46, 47}
    # One whole socket and a few nodes of the other are nearer than half of each.
    assert chosen(host, room, set(), 30, placement) == {*range(10, 16), *range(24, 48)}
    assert chosen(host, room, {10, 47}, 8, placement) == {10, 11, 12, 13, 14, 15, 46, 47}


def test_single_thread_is_found_on_one_of_many_nodes(tmp_path: Path) -> None:
    host = many_nodes(tmp_path, 32, 4, on_two_sockets(32))
    # Nodes 16 to 31 have CPUs 64 to 127. Node 30 has three: a whole core and a single thread.
    room = {*range(8), *range(64, 120), *range(121, 128)}
    assert chosen(host, room, set(), 31) == {*range(64, 92), 121, 122, 123}
    assert chosen(host, room, set(), 63) == {*range(64, 120), *range(121, 128)}
    # The sibling of the single thread belongs to another container.
    assert chosen(host, room, set(), 31, "spread") == set(range(64, 95))


def test_best_of_many_equal_nodes_are_found(tmp_path: Path) -> None:
    host = many_nodes(tmp_path, 16, 4)
    assert chosen(host, set(range(64)), set(), 30) == set(range(30))
    # Every other node has three CPUs, so eight nodes hold 30 if six of them have all four. With
    # seven of those and one core of another node, no core is split and one CPU is left over.
    room = set(range(64)) - set(range(0, 64, 8))
    whole = {4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31}
    whole |= {36, 37, 38, 39, 44, 45, 46, 47, 52, 53, 54, 55}
    assert chosen(host, room, set(), 30) == whole | {2, 3}
    assert chosen(host, room, {59}, 30) == whole | {58, 59}


def test_one_group_of_nodes_is_filled_before_the_next(tmp_path: Path) -> None:
    # Two sockets of four quadrants of three nodes.
    distances = on_two_sockets(24)
    for one, other in distances:
        if distances[one, other] == 11 and one // 3 != other // 3:
            distances[one, other] = 12
    host = many_nodes(tmp_path, 24, 2, distances)
    room = set(range(48)) - {0, 1, 12, 13, 25}
    assert chosen(host, room, set(), 6) == {6, 7, 8, 9, 10, 11}
    assert chosen(host, room, set(), 12) == {*range(6, 12), *range(18, 24)}
    assert chosen(host, room, set(), 14) == {2, 3, *range(6, 12), *range(18, 24)}
    assert chosen(host, room, {47}, 8) == {26, 27, 42, 43, 44, 45, 46, 47}


def test_nearer_nodes_are_preferred_to_whole_cores(tmp_path: Path) -> None:
    # In each half two nodes are the nearest to each other. Two others are a little farther apart
    # and have more CPUs. Those of both halves would use fewer cores, but are not the nearest.
    half = {(0, 1): 11, (0, 2): 12, (2, 3): 15, (0, 3): 99, (1, 2): 99, (1, 3): 99}
    distances = dict.fromkeys(itertools.combinations(range(8), 2), 16)
    for (one, other), distance in half.items():
        distances[one, other] = distances[one + 4, other + 4] = distance
    host = many_nodes(tmp_path, 8, 4, distances)
    room = set(range(32)) - {1, 2, 3, 7, 11, 15, 17, 18, 19, 23, 27, 31}
    nearest = {0, 4, 5, 6, 24, 25, 26, 28, 29, 30}
    assert chosen(host, room, set(), 10) == nearest


def test_near_nodes_are_found_among_irregular_distances(tmp_path: Path) -> None:
    # There are too many sets of nodes to compare all of them. Ten nodes are near each other.
    chance = random.Random(1)
    near = {3, 4, 9, 12, 17, 18, 25, 26, 30, 33}
    distances = {
        (one, other): 11 if {one, other} <= near else chance.randint(20, 40)
        for one, other in itertools.combinations(range(36), 2)
    }
    host = many_nodes(tmp_path, 36, 2, distances)
    cpus = {6, 7, 8, 9, 18, 19, 24, 25, 34, 35, 36, 37, 50, 51, 52, 53, 60, 61, 66, 67}
    assert chosen(host, set(range(72)), set(), 20) == cpus


@pytest.mark.parametrize("size", [24, 36, 48])
def test_search_beyond_its_limit_is_not_worse_than_greedy(tmp_path: Path, size: int) -> None:
    chance = random.Random(2)
    distances = {pair: chance.randint(11, 40) for pair in itertools.combinations(range(36), 2)}
    host = many_nodes(tmp_path, 36, 2, distances)
    taken = chosen(host, set(range(72)), {14}, size)
    assert 14 in taken
    assert len(taken) == size
    # The greedy choice: from the node of CPU 14 on, always the nearest node is added.
    greedy = [7]
    while len(greedy) < size // 2:
        left = set(range(36)) - {*greedy}
        greedy.append(min(left, key=lambda node: sum(host.distance(node, n) for n in greedy)))
    nodes = {cpu // 2 for cpu in taken}
    assert len(nodes) == len(greedy)
    between = [
        sum(host.distance(*pair) for pair in itertools.combinations(some, 2))
        for some in (nodes, greedy)
    ]
    assert between[0] <= between[1]


def test_search_of_a_cache_beyond_its_limit_uses_few_nodes(tmp_path: Path) -> None:
    """20 nodes share one cache: there are too many sets of ten to compare all of them."""
    host = many_nodes(tmp_path, 20, 4)
    everything = frozenset(range(80))
    cpus = {cpu: replace(place, cache=everything) for cpu, place in host.cpus.items()}
    taken = chosen(replace(host, cpus=cpus), set(range(80)), {79}, 40)
    assert len(taken) == 40
    assert len({cpu // 4 for cpu in taken}) == 10
    assert 79 in taken


# Placement=spread


def test_spread_takes_one_thread_per_core(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 4, "spread") == {0, 1, 2, 3}
    assert chosen(host, set(range(16)) - {0, 1}, set(), 3, "spread") == {4, 5, 6}


def test_spread_prefers_one_node_to_separate_cores(host: Machine) -> None:
    assert chosen(host, set(range(16)), set(), 6, "spread") == {0, 1, 2, 3, 8, 9}


def test_spread_avoids_cores_of_other_containers(host: Machine) -> None:
    # The siblings of 0 and 1 belong to another container.
    assert chosen(host, {0, 1, 2, 10, 3, 11}, set(), 2, "spread") == {2, 3}
    assert chosen(host, {0, 1, 2, 10, 3, 11}, set(), 3, "spread") == {0, 2, 3}


def test_core_offered_as_one_device_is_placed_as_one_cpu(host: Machine) -> None:
    separate = host.with_separate_cores(range(8))
    for placement in ("packed", "spread"):
        assert chosen(separate, set(range(8)) - {0}, {7}, 3, placement) == {4, 5, 7}


# Unusual and incomplete topologies, as of virtual machines


def test_siblings_are_used_without_caches(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", set(range(8)))
    for cpu in range(8):
        shutil.rmtree(made_up.directory / f"cpu{cpu}/cache")
    host = machine.read(made_up.root)
    assert chosen(host, {0, 1, 2, 6, 3}, set(), 3) == {0, 2, 6}
    assert chosen(host, {0, 4, 5}, set(), 2, "spread") == {0, 5}


def test_cache_shared_by_numa_nodes(host: Machine) -> None:
    """The NUMA nodes are parts of a package that has one cache."""
    everything = frozenset(range(16))
    cpus = {cpu: replace(place, cache=everything) for cpu, place in host.cpus.items()}
    odd = replace(host, cpus=cpus)
    assert chosen(odd, set(range(16)), set(), 10) == {0, 1, 2, 3, 8, 9, 10, 11, 4, 12}


def test_large_machine_is_placed_in_time(tmp_path: Path) -> None:
    # A search of all sets of CPUs or of caches would not end. bench/placement measures the time.
    places = [
        Place(cpu=cpu, core=cpu % 256, package=0, cache=cpu % 256 // 8, node=cpu % 256 // 32)
        for cpu in range(512)
    ]
    host = machine.read(MadeUpMachine(tmp_path, places, range(512)).root)
    taken = chosen(host, set(range(1, 512)), set(), 225)
    assert len({host.cpus[cpu].node for cpu in taken}) == 4
    assert len({host.cpus[cpu].cache for cpu in taken}) == 15
