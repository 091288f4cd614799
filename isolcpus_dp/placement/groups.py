"""Groups of NUMA nodes that look the same from outside: sockets, quadrants of a socket.

All nodes of a group are equally far from any node outside of it. So the distances between a group
and the rest depend only on how many of its nodes are used, not on which. Groups have groups as
parts, up to the whole machine. An example of two sockets, of which only the second is divided:

    distance   0   1   2   3   4   5
    node 0    10  11  32  32  32  32        whole machine, parts 32 apart
    node 1    11  10  32  32  32  32        |- nodes 0, 1: 11 apart
    node 2    32  32  10  11  12  12        '- second socket, parts 12 apart
    node 3    32  32  11  10  12  12           |- nodes 2, 3: 11 apart
    node 4    32  32  12  12  10  11           '- nodes 4, 5: 11 apart
    node 5    32  32  12  12  11  10

If parts remain that no two of which can be grouped, they are the parts of the whole machine, at
irregular distances. The extreme is a machine on which every distance is another one: its parts are
the nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.placement.nodes import Node, Nodes

# The most nodes that can share caches or cores and still be a group among others.
_MOST_SHARING = 6


@dataclass(frozen=True)
class Group:
    """NUMA nodes that are equally far from any node outside of the group."""

    nodes: tuple[Node, ...]
    # None for a single node, and for nodes that have caches or cores in common: what is taken
    # from one of these changes what it costs to take CPUs from another.
    parts: tuple[Group, ...] = ()
    # Between a node of one part and a node of another, there and back. None if it is not the same
    # for all parts.
    distance: int | None = None


def whole_machine(nodes: Nodes) -> Group:
    """All nodes as one group."""
    blocks = _sharing_blocks(nodes)
    if any(len(block) > _MOST_SHARING or not _alike(nodes, block) for block in blocks):
        return Group(nodes.numbers)
    groups = [Group(block) for block in blocks]
    # The distances between the groups: a row for each one.
    rows = [[nodes.distance(one.nodes[0], other.nodes[0]) for other in groups] for one in groups]
    while pair := _pair(rows):
        first, second = pair
        groups[first] = _united(groups[first], groups.pop(second), rows[first][second])
        del rows[second]
        for row in rows:
            del row[second]
    return groups[0] if len(groups) == 1 else Group(nodes.numbers, tuple(groups))


def _pair(rows: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """The places of two groups that are equally far from any other, if there are such."""
    for first, second in itertools.combinations(range(len(rows)), 2):
        one, other = rows[first], rows[second]
        if (
            one[:first] == other[:first]
            and one[first + 1 : second] == other[first + 1 : second]
            and one[second + 1 :] == other[second + 1 :]
        ):
            return first, second
    return None


def _united(group: Group, other: Group, distance: int) -> Group:
    """The group of both, which are this far apart."""
    parts = group.parts if group.distance == distance else (group,)
    return Group(group.nodes + other.nodes, (*parts, other), distance)


def _alike(nodes: Nodes, block: Sequence[Node]) -> bool:
    """Whether the nodes of the block are equally far from any node outside of it."""
    return all(
        len({nodes.distance(node, outside) for node in block}) == 1
        for outside in nodes.numbers
        if outside not in block
    )


def _sharing_blocks(nodes: Nodes) -> list[tuple[Node, ...]]:
    """All nodes, those that have a cache or a core in common in one block: mostly each alone."""
    cpus = nodes.machine.cpus
    blocks: list[tuple[list[Node], set[frozenset[int]]]] = []
    for node in nodes.numbers:
        members = [node]
        shared = {cpus[cpu].cache for cpu in nodes.cpus_on(members)}
        shared |= {cpus[cpu].siblings for cpu in nodes.cpus_on(members)}
        for block in [block for block in blocks if not shared.isdisjoint(block[1])]:
            blocks.remove(block)
            members = block[0] + members
            shared |= block[1]
        blocks.append((members, shared))
    return [tuple(members) for members, _ in blocks]
