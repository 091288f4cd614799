"""Groups of NUMA nodes with equal distances to others: sockets, quadrants of a socket.

All nodes of a group have the same distance to any node outside of it. So the distances between a
group and the rest depend only on the number of its nodes that are used. The parts of a group are
groups, up to the whole machine. An example of two sockets, of which only the second is divided:

    distance   0   1   2   3   4   5
    node 0    10  11  32  32  32  32        whole machine, parts 32 apart
    node 1    11  10  32  32  32  32        |- nodes 0, 1: 11 apart
    node 2    32  32  10  11  12  12        '- second socket, parts 12 apart
    node 3    32  32  11  10  12  12           |- nodes 2, 3: 11 apart
    node 4    32  32  12  12  10  11           '- nodes 4, 5: 11 apart
    node 5    32  32  12  12  11  10

If several groups remain and no two of them can be united, they are the parts of the whole machine,
at irregular distances. If all distances differ, each part is a single node.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.placement.nodes import Node, Nodes

# The most nodes that can share caches or cores. If more do, the machine is not divided into groups.
_MOST_SHARING = 6


@dataclass(frozen=True)
class Group:
    """NUMA nodes with the same distance to any node outside of the group."""

    nodes: tuple[Node, ...]
    # Empty for a single node, and for nodes that share caches or cores: CPUs taken from one of them
    # change the cost of CPUs of the others.
    parts: tuple[Group, ...] = ()
    # Between nodes of different parts, as the sum of both directions. None if it is not the same
    # for all parts.
    distance: int | None = None


def whole_machine(nodes: Nodes) -> Group:
    """All nodes as one group."""
    blocks = _sharing_blocks(nodes)
    if any(len(block) > _MOST_SHARING or not _equally_far(nodes, block) for block in blocks):
        return Group(nodes.numbers)
    groups = [Group(block) for block in blocks]
    # The distances between the groups, a row for each group.
    rows = [[nodes.distance(one.nodes[0], other.nodes[0]) for other in groups] for one in groups]
    while pair := _pair(rows):
        first, second = pair
        groups[first] = _united(groups[first], groups.pop(second), rows[first][second])
        del rows[second]
        for row in rows:
            del row[second]
    return groups[0] if len(groups) == 1 else Group(nodes.numbers, tuple(groups))


def _pair(rows: Sequence[Sequence[int]]) -> tuple[int, int] | None:
    """The indexes of two groups that have the same distances to all others, or None."""
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
    """The group of both, which have this distance from each other."""
    parts = group.parts if group.distance == distance else (group,)
    return Group(group.nodes + other.nodes, (*parts, other), distance)


def _equally_far(nodes: Nodes, block: Sequence[Node]) -> bool:
    """Whether the nodes of the block have the same distance to any node outside of it."""
    return all(
        len({nodes.distance(node, outside) for node in block}) == 1
        for outside in nodes.numbers
        if outside not in block
    )


def _sharing_blocks(nodes: Nodes) -> list[tuple[Node, ...]]:
    """All nodes in blocks; nodes that share a cache or a core are in the same block."""
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
