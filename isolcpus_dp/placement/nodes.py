"""What the NUMA nodes hold, and how many CPUs of a choice can be on which of them.

Knows nothing of caches and cores.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

# The number of a NUMA node; None for the CPUs whose node the kernel does not give.
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
        # The nodes of the CPUs that must be included: every choice is on them.
        self.required = frozenset(machine.cpus[cpu].node for cpu in must_include)
        most = self.most_cpus(self.numbers)
        # The number of nodes of every choice: as few as can hold it.
        self.fewest = min(count for count, cpus in most.items() if cpus >= size)
        # At most this many available CPUs are left over on the nodes of a choice.
        self.spare = most[self.fewest] - size

    def cpus_on(self, nodes: Iterable[Node]) -> list[int]:
        """The available CPUs of these nodes, in ascending order."""
        return sorted(cpu for node in nodes for cpu in self._cpus[node])

    def distance(self, node: Node, other: Node) -> int:
        """The distance there plus the distance back: the two can differ."""
        return self.machine.distance(node, other) + self.machine.distance(other, node)

    def most_cpus(self, nodes: Collection[Node]) -> dict[int, int]:
        """The most CPUs that 0, 1, 2... of these nodes hold, by that number.

        The required ones are always among them, so the lowest number is that of the required ones.
        """
        required = [len(self._cpus[node]) for node in nodes if node in self.required]
        others = [len(self._cpus[node]) for node in nodes if node not in self.required]
        sums = itertools.accumulate(sorted(others, reverse=True), initial=sum(required))
        return dict(enumerate(sums, len(required)))

    def shares(self, nodes: Collection[Node]) -> dict[int, range]:
        """How many CPUs of a choice can be on 0, 1, 2... of these nodes, by that number of nodes.

        The other nodes of the choice have to hold the rest. A number of nodes is absent if no
        choice is on as many of them.
        """
        inside = self.most_cpus(nodes)
        outside = self.most_cpus([node for node in self.numbers if node not in nodes])
        shares = {}
        for count, most in inside.items():
            rest = outside.get(self.fewest - count)
            if rest is not None and most + rest >= self.size:
                shares[count] = range(max(0, self.size - rest), min(most, self.size) + 1)
        return shares
