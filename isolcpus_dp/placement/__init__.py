"""Which CPUs of a pool a container should get: plain functions over a Machine.

Of all choices the one that is least by a stated rule, found exactly. Of the available CPUs A, a
choice S of the wanted size, with all that must be in it, is least in this order:

1. NUMA nodes touched; among equally many, the sum of the distances between them
2. last-level caches touched
3. packed: cores touched; spread: cores with two or more threads in S
4. packed: cores broken, of which S takes some but not all of the threads in A;
   spread: threads of S on a core that has a thread outside A, somebody else's
5. CPUs of A left over in the touched NUMA nodes, then in the touched caches
6. the CPU numbers, compared as sorted lists

How: no choice on the least number of nodes leaves one of them untouched, so for a given set of
nodes only the rest of the rule is open, and that adds up over nodes, caches and cores. `nodes`
finds the sets of nodes that are least by 1., `cores` says what parts of a node cost by the rest.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from isolcpus_dp.placement.cores import Costs
from isolcpus_dp.placement.nodes import Nearest, State, Way
from isolcpus_dp.placement.tables import Table, join

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

PLACEMENTS = ("packed", "spread")

# So many sets of nodes are looked at one by one: most can be put aside after counting.
_FEW_SETS = 16
# The safety valves: as many costs are compared in half a second, and CPUs counted.
_MOST_COMPARED = 5_000_000
_MOST_COUNTED = 100_000


def choose(
    machine: Machine,
    available: frozenset[int],
    must_include: frozenset[int],
    size: int,
    placement: str = "packed",
) -> frozenset[int]:
    """`size` CPUs of `available`, all of `must_include` among them; `placement` is of PLACEMENTS.

    Expects must_include within available and len(must_include) <= size <= len(available).

    The time grows with the square of the CPUs at worst, and with the number of NUMA nodes where
    their distances have a pattern: groups of equals, groups of groups, a mesh. It is the caller's
    event loop that waits. So there are limits, which only machines reach that have more than
    twenty nodes without such a pattern, or caches and cores across many nodes: beyond them it is
    the best choice that was found in less than about a second, on as few nodes as can be.

    Exact on machines where a core's threads share their last-level cache, or where all that share
    a cache are threads of one core, as where the kernel tells no caches. Others are a hypervisor's
    mistake; there a better choice by 2. to 6. may exist.
    """
    nearest = Nearest(machine, available, must_include, size)
    costs = Costs(machine, available, must_include, size, placement, nearest.spare)
    sets = list(itertools.islice(nearest.sets(), _FEW_SETS + 1))
    if len(sets) > _FEW_SETS:
        ways = nearest.ways(_MOST_COMPARED)
        if ways:
            return costs.choice(_least_of_ways(nearest, costs, ways, size))
        sets = list(itertools.islice(nearest.sets(), max(_FEW_SETS, _MOST_COUNTED // (size + 100))))
    return costs.choice(_least_of_sets(costs, [nearest.on(nodes) for nodes in sets], size))


def _least_of_sets(costs: Costs, sets: list[list[int]], size: int) -> int:
    """What the best choice on one of these sets of nodes costs; of each set its CPUs."""
    bounds = [(0, 0)]
    if len(sets) > 1:
        bounds = sorted((costs.bound(cpus), at) for at, cpus in enumerate(sets))
    best = costs.never
    for bound, at in bounds[:_FEW_SETS]:
        if bound >= best:
            break
        table = costs.table(sets[at], len(sets[at]) - size)
        best = min(best, table.costs[size - table.first])
    return best


def _least_of_ways(nearest: Nearest, costs: Costs, ways: list[list[Way]], size: int) -> int:
    """What the best choice on any of the sets costs that are made up of these ways.

    A table says of the state that a way leads to what taking 0, 1, 2… CPUs costs until then. Sets
    that are farther than others fall behind by the distance, which costs more than all the rest;
    those that hold too little have no cost for so many CPUs.
    """
    tables: dict[tuple[int | None, ...], Table] = {}
    before = {ways[0][0].start: Table(0, [0])}
    for some in ways:
        after: dict[State, tuple[int, list[int]]] = {}
        for way in some:
            if way.nodes not in tables:
                tables[way.nodes] = costs.table(nearest.on(way.nodes))
            if way.end not in after:
                fewest = max(0, size - way.end.most_ahead)
                after[way.end] = fewest, [costs.never] * (min(size, way.end.held) - fewest + 1)
            distance = way.distance * costs.distance
            join(before[way.start], tables[way.nodes], *after[way.end], distance)
        before = {state: Table(*table) for state, table in after.items()}
    (whole,) = before.values()
    return whole.costs[size - whole.first]
