"""How NUMA nodes are grouped by their distances; the first machine is the one in `groups`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isolcpus_dp.host.machine import Cpu, Machine
from isolcpus_dp.placement import groups
from isolcpus_dp.placement.groups import Group, whole_machine
from isolcpus_dp.placement.nodes import Nodes


def group(rows: Sequence[Sequence[int]], caches: Sequence[int] | None = None) -> Group:
    """The whole machine with one CPU per node; `caches` has the cache of each node."""
    caches = caches or range(len(rows))
    cpus = {
        cpu: Cpu(
            cpu=cpu,
            online=True,
            core=cpu,
            siblings=frozenset({cpu}),
            package=0,
            die=0,
            cache=frozenset(other for other, cache in enumerate(caches) if cache == caches[cpu]),
            node=cpu,
        )
        for cpu in range(len(rows))
    }
    distances = {(one, other): far for one, row in enumerate(rows) for other, far in enumerate(row)}
    every = frozenset(cpus)
    machine = Machine(every, every, every, every, cpus, distances)
    return whole_machine(Nodes(machine, every, frozenset(), 1))


def drawn() -> list[list[int]]:
    """The distances in the docstring of `groups`."""
    return [
        [int(number) for number in numbers.split()[:6]]
        for numbers in re.findall(r"^ *node \d ((?: +\d+){6})", groups.__doc__ or "", re.MULTILINE)
    ]


def test_example_machine_is_grouped_as_documented() -> None:
    near, half = (
        Group((0, 1), (Group((0,)), Group((1,))), 22),
        Group((2, 3), (Group((2,)), Group((3,))), 22),
    )
    other_half = Group((4, 5), (Group((4,)), Group((5,))), 22)
    second = Group((2, 3, 4, 5), (half, other_half), 24)
    assert len(drawn()) == 6
    assert group(drawn()) == Group((0, 1, 2, 3, 4, 5), (near, second), 64)


def test_equal_nodes_are_parts_of_one_group() -> None:
    rows = [[10 if one == other else 20 for other in range(4)] for one in range(4)]
    assert group(rows) == Group((0, 1, 2, 3), tuple(Group((node,)) for node in range(4)), 40)


def test_distances_of_both_directions_are_added() -> None:
    assert group([[10, 12], [17, 10]]).distance == 29


def test_nodes_at_irregular_distances_stay_parts_of_the_machine() -> None:
    rows = [[10, 11, 12], [11, 10, 13], [12, 13, 10]]
    assert group(rows) == Group((0, 1, 2), (Group((0,)), Group((1,)), Group((2,))), None)


def test_equal_nodes_are_grouped_among_irregular_ones() -> None:
    # Nodes 2 and 3 are equally far from 0, from 1 and from 4.
    rows = [
        [10, 11, 12, 12, 14],
        [11, 10, 13, 13, 15],
        [12, 13, 10, 11, 16],
        [12, 13, 11, 10, 16],
        [14, 15, 16, 16, 10],
    ]
    pair = Group((2, 3), (Group((2,)), Group((3,))), 22)
    assert group(rows).parts == (Group((0,)), Group((1,)), pair, Group((4,)))
    assert group(rows).distance is None


def test_nodes_that_share_a_cache_are_one_group_without_parts() -> None:
    rows = [[10, 12, 21], [12, 10, 21], [21, 21, 10]]
    whole = group(rows, caches=[0, 0, 1])
    assert whole == Group((0, 1, 2), (Group((0, 1)), Group((2,))), 42)


def test_nodes_of_a_cache_with_different_distances_form_no_group() -> None:
    rows = [[10, 12, 21], [12, 10, 31], [21, 31, 10]]
    assert group(rows, caches=[0, 0, 1]) == Group((0, 1, 2))
