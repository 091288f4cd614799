"""The available CPUs of NUMA nodes, and how many CPUs of a choice can be on which nodes.

Does not consider caches and cores.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

# The number of a NUMA node; None for CPUs whose node is unknown.
Node = Optional[int]


class Nodes:
    """The NUMA nodes that have available CPUs, for one call of choose()."""

    def __init__(
        self,
        machine: Machine,
        available: frozenset[int],
        must_include: frozenset[int],
        size: int,
    ) -> None:
        self.machine = machine
        self.size = size
        self._cpus: dict[Node, list[int]] = defaultdict(list)
        for cpu in sorted(available):
            self._cpus[machine.cpus[cpu].node].append(cpu)
        self.numbers = tuple(self._cpus)
        # The nodes of the CPUs that must be included. Every choice uses them.
        self.required = frozenset(machine.cpus[cpu].node for cpu in must_include)
        most = self.most_cpus(self.numbers)
        # The number of nodes of every choice: the smallest that can hold it.
        self.fewest = min(count for count, cpus in most.items() if cpus >= size)
        # The largest number of available CPUs that remain on the nodes of a choice.
        self.spare = most[self.fewest] - size

    def cpus_on(self, nodes: Iterable[Node]) -> list[int]:
        """The available CPUs of these nodes, in ascending order."""
        return sorted(cpu for node in nodes for cpu in self._cpus[node])

    def distance(self, node: Node, other: Node) -> int:
        """The sum of the distances in both directions, which can differ."""
        return self.machine.distance(node, other) + self.machine.distance(other, node)

    def most_cpus(self, nodes: Collection[Node]) -> dict[int, int]:
        """By number of nodes: the most CPUs that this number of these nodes can hold.

        The required nodes are always included, so their number is the lowest key.
        """
        required = [len(self._cpus[node]) for node in nodes if node in self.required]
        others = [len(self._cpus[node]) for node in nodes if node not in self.required]
        sums = itertools.accumulate(sorted(others, reverse=True), initial=sum(required))
        return dict(enumerate(sums, len(required)))

    def shares(self, nodes: Collection[Node]) -> dict[int, range]:
        """By number of nodes: how many CPUs of a choice can be on this number of these nodes.

        The other nodes of the choice must hold the rest. A number is missing if no choice uses
        this number of these nodes.
        """
        inside = self.most_cpus(nodes)
        outside = self.most_cpus([node for node in self.numbers if node not in nodes])
        shares = {}
        for count, most in inside.items():
            rest = outside.get(self.fewest - count)
            if rest is not None and most + rest >= self.size:
                shares[count] = range(max(0, self.size - rest), min(most, self.size) + 1)
        return shares
