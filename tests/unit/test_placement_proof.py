"""Proves that placement follows its rule, by comparing it with a search of every choice.

It runs 2,000 cases, or PLACEMENT_CASES if it is set: `make test-placement` runs 20,000.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from isolcpus_dp.config import Placement
from isolcpus_dp.host.machine import Cpu, Machine
from isolcpus_dp.placement import choose

CASES = int(os.environ.get("PLACEMENT_CASES", "2000"))
# A failed test names its batch. A batch always has the same cases.
BATCH = 100

# The node, cache and core of a thread.
Thread = tuple[int, tuple[int, int], tuple[int, int, int]]

MOST_AVAILABLE = 12  # all C(12, 6) choices are compared in milliseconds


@dataclass(frozen=True)
class Case:
    """A call of choose()."""

    machine: Machine
    available: frozenset[int]
    must: frozenset[int]
    size: int


def random_case(chance: random.Random) -> Case:
    machine = random_machine(chance)
    most = min(len(machine.cpus), MOST_AVAILABLE)
    available = frozenset(chance.sample(sorted(machine.cpus), chance.randint(1, most)))
    size = chance.randint(1, len(available))
    forced = chance.randint(0, size) if chance.random() < 0.4 else 0
    must = frozenset(chance.sample(sorted(available), forced))
    return Case(machine, available, must, size)


def random_machine(chance: random.Random) -> Machine:
    """Nodes of one to three caches of one to four cores; in some machines of equal shape."""
    sockets = chance.random() < 0.3
    nodes = range(chance.randint(3, 6) if sockets else chance.randint(1, 4))
    largest = chance.choice([1, 2]) if sockets else 4
    smt = chance.choice([1, 2, 2, 4, 4])
    threads = [
        (node, (node, cache), (node, cache, core))
        for node in nodes
        for cache in range(chance.randint(1, min(largest, 3)))
        for core in range(chance.randint(1, largest))
        for _ in range(chance.choice([1, 2, 4]) if chance.random() < 0.2 else smt)
    ]
    if chance.random() < 0.7:
        chance.shuffle(threads)  # CPU numbers do not follow the topology
    threads, caches = random_caches(chance, threads)
    unknown = None if sockets else 3  # a node that the kernel does not give for its CPUs
    cpus = {
        cpu: Cpu(
            cpu=cpu,
            online=True,
            core=0,
            siblings=frozenset(n for n, other in enumerate(threads) if other[2] == core),
            package=0,
            die=0,
            cache=frozenset(n for n, other in enumerate(caches) if other == caches[cpu]),
            node=None if node == unknown else node,
        )
        for cpu, (node, _, core) in enumerate(threads)
    }
    everything = frozenset(cpus)
    return Machine(
        possible=everything,
        present=everything,
        online=everything,
        isolated=everything,
        cpus=cpus,
        distances=random_distances(chance, nodes, sockets),
    )


def random_caches(
    chance: random.Random, threads: list[Thread]
) -> tuple[list[Thread], list[object]]:
    """The threads, each with its cache."""
    kind = chance.random()
    if kind < 0.1:  # the nodes of a package share one cache
        if chance.random() < 0.3:  # and cores across nodes as well
            threads = [(node, cache, (node // 2, *core[1:])) for node, cache, core in threads]
        return threads, [node // 2 for node, _, _ in threads]
    if kind < 0.2:  # some caches span several nodes
        across = {cache for _, cache, _ in threads if chance.random() < 0.3}
        return threads, [cache[1] if cache in across else cache for _, cache, _ in threads]
    if kind < 0.25:  # the kernel gives no caches, as on many virtual machines
        return threads, list(range(len(threads)))
    return threads, [cache for _, cache, _ in threads]


def random_distances(
    chance: random.Random, nodes: range, sockets: bool
) -> dict[tuple[int, int], int]:
    near, far = chance.choice([([11], 32), ([12], 21), ([21], 21), ([11, 15], 32)])
    one_way = chance.random() < 0.2
    distances = {(node, node): 10 for node in nodes}
    for one, other in itertools.combinations(nodes, 2):
        there = back = chance.choice(near) if one // 3 == other // 3 else far
        if not sockets:
            there = back = chance.choice([12, 21, 21, 31])
        if one_way and chance.random() < 0.5:
            back = chance.choice([12, 21, 31])
        distances[one, other], distances[other, one] = there, back
    return distances


def cost(case: Case, choice: frozenset[int], placement: Placement) -> list[object]:
    """The rule in isolcpus-dp.conf(5), item by item, for one choice."""
    cpus, left = case.machine.cpus, case.available - choice
    nodes = {cpus[cpu].node for cpu in choice}
    caches = {cpus[cpu].cache for cpu in choice}
    cores = {cpus[cpu].siblings for cpu in choice}
    distance = sum(
        case.machine.distance(one, other) for one, other in itertools.permutations(nodes, 2)
    )
    if placement == "packed":
        broken = sum(1 for core in cores if core & left)
        third_and_fourth = [len(cores), broken]
    else:
        doubled = sum(1 for core in cores if len(core & choice) >= 2)
        shared = sum(1 for cpu in choice if cpus[cpu].siblings - case.available)
        third_and_fourth = [doubled, shared]
    return [
        len(nodes),
        distance,
        len(caches),
        *third_and_fourth,
        sum(1 for cpu in left if cpus[cpu].node in nodes),
        sum(1 for cpu in left if cpus[cpu].cache in caches),
        sorted(choice),
    ]


def every_choice(case: Case) -> Iterable[frozenset[int]]:
    rest = sorted(case.available - case.must)
    for more in itertools.combinations(rest, case.size - len(case.must)):
        yield case.must | frozenset(more)


@pytest.mark.parametrize("placement", ["packed", "spread"])
@pytest.mark.parametrize("batch", range(CASES // BATCH))
def test_no_choice_is_better(batch: int, placement: Placement) -> None:
    chance = random.Random(batch)
    for _ in range(BATCH // 2):
        case = random_case(chance)
        taken = choose(case.machine, case.available, case.must, case.size, placement)
        best = min(every_choice(case), key=lambda choice: cost(case, choice, placement))
        assert sorted(taken) == sorted(best), case


# Larger machines at irregular distances, where a search of all sets of nodes is still possible.


def irregular_machine(chance: random.Random, nodes: int) -> Machine:
    """Nodes of one to four CPUs without siblings; few distances are equal."""
    node_of = [node for node in range(nodes) for _ in range(chance.randint(1, 4))]
    cpus = {
        cpu: Cpu(
            cpu=cpu,
            online=True,
            core=cpu,
            siblings=frozenset({cpu}),
            package=0,
            die=0,
            cache=frozenset(other for other, its in enumerate(node_of) if its == node),
            node=node,
        )
        for cpu, node in enumerate(node_of)
    }
    distances = {(node, node): 10 for node in range(nodes)}
    for one, other in itertools.permutations(range(nodes), 2):
        distances[one, other] = chance.randint(11, 30)
    everything = frozenset(cpus)
    return Machine(everything, everything, everything, everything, cpus, distances)


def nearest_sets(machine: Machine, size: int, required: frozenset[int]) -> list[set[int]]:
    """The sets of nodes that hold `size` CPUs, with as few nodes and as near as possible."""
    held = Counter(cpu.node or 0 for cpu in machine.cpus.values())
    for count in range(1, len(held) + 1):
        sets: dict[int, list[set[int]]] = {}
        for nodes in map(set, itertools.combinations(held, count)):
            if required <= nodes and sum(held[node] for node in nodes) >= size:
                distance = sum(machine.distance(*pair) for pair in itertools.permutations(nodes, 2))
                sets.setdefault(distance, []).append(nodes)
        if sets:
            return sets[min(sets)]
    raise AssertionError("the machine holds fewer CPUs")


@pytest.mark.parametrize("seed", range(20))
def test_no_nodes_are_nearer_at_irregular_distances(seed: int) -> None:
    chance = random.Random(seed)
    machine = irregular_machine(chance, chance.randint(7, 12))
    available = frozenset(machine.cpus)
    size = chance.randint(len(available) // 4, len(available) * 3 // 4)
    must = frozenset(chance.sample(sorted(available), seed % 3))
    taken = choose(machine, available, must, size)
    required = frozenset(machine.cpus[cpu].node or 0 for cpu in must)
    assert must <= taken
    assert len(taken) == size
    assert {machine.cpus[cpu].node for cpu in taken} in nearest_sets(machine, size, required)
