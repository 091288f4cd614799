"""That placement keeps its rule: against a search that tries every choice and knows nothing else.

2,000 cases by default; PLACEMENT_CASES says another number, and `make test-placement` does.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from isolcpus_dp.machine import Cpu, Machine
from isolcpus_dp.placement import choose

CASES = int(os.environ.get("PLACEMENT_CASES", "2000"))
# A failure names its batch: a batch is always the same cases.
BATCH = 100

MOST_AVAILABLE = 12  # C(12, 6) choices are looked at in milliseconds


@dataclass(frozen=True)
class Case:
    """A call of choose()."""

    machine: Machine
    available: frozenset[int]
    must: frozenset[int]
    size: int


def made_up(chance: random.Random) -> Case:
    machine = made_up_machine(chance)
    most = min(len(machine.cpus), MOST_AVAILABLE)
    available = frozenset(chance.sample(sorted(machine.cpus), chance.randint(1, most)))
    size = chance.randint(1, len(available))
    forced = chance.randint(0, size) if chance.random() < 0.4 else 0
    must = frozenset(chance.sample(sorted(available), forced))
    return Case(machine, available, must, size)


def made_up_machine(chance: random.Random) -> Machine:
    """One to four nodes of one to three caches of one to four cores, none like the other."""
    nodes = range(chance.randint(1, 4))
    smt = chance.choice([1, 2, 2, 4])
    threads = [
        (node, (node, cache), (node, cache, core))
        for node in nodes
        for cache in range(chance.randint(1, 3))
        for core in range(chance.randint(1, 4))
        for _ in range(chance.choice([1, 2, 4]) if chance.random() < 0.2 else smt)
    ]
    if chance.random() < 0.7:
        chance.shuffle(threads)  # numbers say nothing of where a CPU sits
    cpus = {
        cpu: Cpu(
            cpu=cpu,
            online=True,
            core=0,
            siblings=frozenset(n for n, other in enumerate(threads) if other[2] == core),
            package=0,
            die=0,
            cache=frozenset(n for n, other in enumerate(threads) if other[1] == cache),
            node=None if node == 3 else node,  # a CPU of which the kernel does not tell the node
        )
        for cpu, (node, cache, core) in enumerate(threads)
    }
    distances = {}
    for one, other in itertools.combinations(nodes, 2):
        distances[one, other] = distances[other, one] = chance.choice([12, 21, 21, 31])
    everything = frozenset(cpus)
    return Machine(
        possible=everything,
        present=everything,
        online=everything,
        isolated=everything,
        cpus=cpus,
        distances={**distances, **{(node, node): 10 for node in nodes}},
    )


def cost(case: Case, choice: frozenset[int], placement: str) -> list[object]:
    """The rule of the documentation, word by word, for one choice."""
    cpus, left = case.machine.cpus, case.available - choice
    nodes = {cpus[cpu].node for cpu in choice}
    caches = {cpus[cpu].cache for cpu in choice}
    cores = {cpus[cpu].siblings for cpu in choice}
    distance = sum(
        case.machine.distance(one, other) for one, other in itertools.combinations(nodes, 2)
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
def test_no_choice_is_better(batch: int, placement: str) -> None:
    chance = random.Random(batch)
    for _ in range(BATCH // 2):
        case = made_up(chance)
        taken = choose(case.machine, case.available, case.must, case.size, placement)
        best = min(every_choice(case), key=lambda choice: cost(case, choice, placement))
        assert sorted(taken) == sorted(best), case
