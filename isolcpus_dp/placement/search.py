"""The cheapest choice on NUMA nodes at irregular distances, found by branch and bound.

The nodes are divided into parts, mostly of one node. One part after the other, the search decides
how many of its nodes are used. It abandons decisions that cannot lead to a choice that costs less
than the best known one. The order of the parts is greedy: the next part is always the nearest to
those before. So the first choice found is the greedy one, which is good enough to abandon most
other decisions early.

Even so, in the worst case the time grows exponentially with the number of parts. So there is a
limit, MOST_EFFORT. When it is reached, the result is the best choice found so far: on the smallest
number of nodes, and not worse than the greedy one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from isolcpus_dp.placement.tables import Table, join

if TYPE_CHECKING:
    from isolcpus_dp.placement.cores import Costs
    from isolcpus_dp.placement.nodes import Node, Nodes

# The limit of a search, about half a second. The unit is a comparison of two costs, about 0.1 us.
MOST_EFFORT = 5_000_000
# The effort that each undecided node adds to a decision.
_EFFORT_PER_NODE = 5


class Part(NamedTuple):
    """NUMA nodes with the same distance to any node of another part."""

    nodes: tuple[Node, ...]
    # By number of nodes used: a lower bound of the cost of CPUs on exactly this number of nodes.
    least_costs: Mapping[int, int]


class Decisions(NamedTuple):
    """How many nodes of each of the first parts are used, and values derived from that."""

    counts: tuple[int, ...]
    missing: int  # how many nodes of the other parts must still be used
    most_cpus: int  # the most CPUs that the used nodes can hold
    least_cost: int  # the sum of the least costs of the parts
    distance: int  # the sum of the distances between used nodes of different parts
    distances: Sequence[int]  # from each undecided node to all used nodes


class Search:
    """A search among the nodes of some parts."""

    def __init__(
        self,
        nodes: Nodes,
        costs: Costs,
        parts: Sequence[Part],
        table: Callable[[Sequence[int]], Table],
        effort_per_cpu: int,
    ) -> None:
        """`table` takes the number of nodes used of each part, and returns the costs of their CPUs.

        The costs do not include the distances between parts. In addition to the comparisons,
        calling it takes `effort_per_cpu` for each CPU of these nodes.
        """
        self._nodes = nodes
        self._costs = costs
        self._table = table
        self._effort_per_cpu = effort_per_cpu
        self._order = self._greedy_order(parts)
        self._parts = [parts[place] for place in self._order]
        # The undecided nodes after 0, 1, 2... decisions, and the most CPUs they can hold.
        self._ahead = [
            [node for part in self._parts[step:] for node in part.nodes]
            for step in range(len(parts) + 1)
        ]
        self._most_cpus_ahead = [nodes.most_cpus(ahead) for ahead in self._ahead]
        self._most_cpus = [nodes.most_cpus(part.nodes) for part in self._parts]
        self._nearest: dict[int, list[list[int]]] = {}
        self._effort = 0

    def table(self, count: int, share: range) -> Table:
        """The costs of the numbers of CPUs in `share`, on exactly `count` nodes."""
        best = [self._costs.never] * len(share)
        self._effort = 0
        unfinished = [Decisions((), count, 0, 0, 0, [0] * len(self._ahead[0]))]
        while unfinished and (self._effort < MOST_EFFORT or self._costs.never in best):
            decisions, highest = unfinished.pop(), max(best)
            if not decisions.missing:
                self._complete(decisions, share, best)
            elif highest == self._costs.never or self._bound(decisions) < highest:
                unfinished += self._next(decisions, share.start)
        return Table(share.start, best)

    def _next(self, decisions: Decisions, fewest_cpus: int) -> Iterator[Decisions]:
        """All decisions with one more part that can hold `fewest_cpus`; most nodes last."""
        step = len(decisions.counts)
        part, ahead = self._parts[step], self._ahead[step + 1]
        to_used = decisions.distances[0]
        to_others = decisions.distances[len(part.nodes) :]
        apart = [self._nodes.distance(part.nodes[0], node) for node in ahead]
        for count in sorted(part.least_costs):
            missing = decisions.missing - count
            most_cpus = decisions.most_cpus + self._most_cpus[step][count]
            most_cpus_ahead = self._most_cpus_ahead[step + 1].get(missing)
            if most_cpus_ahead is None or most_cpus + most_cpus_ahead < fewest_cpus:
                continue
            yield Decisions(
                (*decisions.counts, count),
                missing,
                most_cpus,
                decisions.least_cost + part.least_costs[count],
                decisions.distance + count * to_used,
                [far + count * more for far, more in zip(to_others, apart)],
            )

    def _bound(self, decisions: Decisions) -> int:
        """A lower bound of the cost of all choices that the decisions can lead to.

        The distances of a further node are at least those to the used nodes, and half of those to
        its nearest undecided nodes, as many as are missing beside it. Half, because the distance
        between two missing nodes is counted for both.
        """
        missing = decisions.missing
        nearest = self._nearest_sums(len(decisions.counts))
        self._effort += _EFFORT_PER_NODE * len(nearest)
        twice = sorted(
            2 * far + sums[missing - 1] for far, sums in zip(decisions.distances, nearest)
        )
        distance = decisions.distance + (sum(twice[:missing]) + 1) // 2
        return decisions.least_cost + distance * self._costs.distance

    def _nearest_sums(self, step: int) -> list[list[int]]:
        """For each undecided node: the sum of distances to its nearest 0, 1, 2... others."""
        if step not in self._nearest:
            ahead = self._ahead[step]
            self._effort += 2 * _EFFORT_PER_NODE * len(ahead) ** 2
            rows = [
                [self._nodes.distance(node, other) for other in ahead if other != node]
                for node in ahead
            ]
            self._nearest[step] = [[*itertools.accumulate(sorted(row), initial=0)] for row in rows]
        return self._nearest[step]

    def _complete(self, decisions: Decisions, share: range, best: list[int]) -> None:
        """Lowers `best` to the costs of the numbers of CPUs in `share` on the used nodes."""
        counts = dict(zip(self._order, decisions.counts))
        table = self._table([counts.get(place, 0) for place in range(len(self._parts))])
        distances = Table(0, [decisions.distance * self._costs.distance])
        join(distances, table, share.start, best)
        self._effort += sum(decisions.counts) * self._nodes.spare**2 // 2
        self._effort += self._effort_per_cpu * decisions.most_cpus

    def _greedy_order(self, parts: Sequence[Part]) -> list[int]:
        """The indexes of the parts: required nodes first, then always the nearest to those before.

        The first part is the one with the smallest sum of distances to the number of nodes used.
        """
        optional = [self._nodes.required.isdisjoint(part.nodes) for part in parts]
        nearest = []
        for part in parts:
            row = [self._nodes.distance(part.nodes[0], node) for node in self._nodes.numbers]
            nearest.append(sum(sorted(row)[: self._nodes.fewest]))
        order = [min(range(len(parts)), key=lambda place: (optional[place], nearest[place]))]
        far = {place: 0 for place in range(len(parts)) if place not in order}
        while far:
            last = parts[order[-1]].nodes
            for place in far:
                far[place] += len(last) * self._nodes.distance(last[0], parts[place].nodes[0])
            order.append(min(far, key=lambda place: (optional[place], far[place])))
            del far[order[-1]]
        return order
