"""The costs of CPUs on a group of NUMA nodes, by the number of nodes used.

The tables of the parts are joined to those of the group, up to the whole machine. Outside of a
group only the number of its used nodes matters: see `groups`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from isolcpus_dp.placement.search import Part, Search
from isolcpus_dp.placement.tables import Table, join, joined

if TYPE_CHECKING:
    from isolcpus_dp.placement.cores import Costs
    from isolcpus_dp.placement.groups import Group
    from isolcpus_dp.placement.nodes import Node, Nodes

# The effort per CPU of joining tables, and of computing those of nodes that share caches.
_JOINING_EFFORT = 10
_SHARING_EFFORT = 200

# By number of nodes: the table of CPUs on exactly this number of nodes.
Tables = Mapping[int, Table]


class Totals:
    """The tables of groups, for one call of choose()."""

    def __init__(self, nodes: Nodes, costs: Costs) -> None:
        self._nodes = nodes
        self._costs = costs

    def tables(self, group: Group) -> Tables:
        """The tables of a group, by the numbers of nodes of Nodes.shares().

        They include the distances between the nodes of the group. The whole machine has a single
        table, that of Nodes.fewest nodes.
        """
        if len(group.nodes) == 1:
            counts = self._nodes.shares(group.nodes)
            return {count: self._on(group.nodes * count) for count in counts}
        if not group.parts:
            return self._of_sharing(group.nodes)
        if group.distance is None:
            return self._of_irregular(group.parts)
        nodes, tables = group.parts[0].nodes, self.tables(group.parts[0])
        for part in group.parts[1:]:
            nodes += part.nodes
            tables = self._of_both(nodes, tables, self.tables(part), group.distance)
        return tables

    def _on(self, nodes: Iterable[Node]) -> Table:
        """The table of CPUs on exactly these nodes, without the distances between them."""
        return self._costs.table(self._nodes.cpus_on(nodes))

    def _of_both(
        self, nodes: tuple[Node, ...], tables: Tables, others: Tables, distance: int
    ) -> Tables:
        """The tables of two groups at this distance together; `nodes` are the nodes of both."""
        shares = self._nodes.shares(nodes)
        best = {count: [self._costs.never] * len(share) for count, share in shares.items()}
        for (one, table), (other, more) in itertools.product(tables.items(), others.items()):
            if one + other in shares:
                apart = one * other * distance * self._costs.distance
                join(table, more, shares[one + other].start, best[one + other], apart)
        return {count: Table(share.start, best[count]) for count, share in shares.items()}

    def _of_irregular(self, groups: Sequence[Group]) -> Tables:
        """The tables of several groups together, which are at irregular distances."""
        tables = [self.tables(group) for group in groups]
        parts = [
            Part(group.nodes, {count: min(table.costs) for count, table in by_count.items()})
            for group, by_count in zip(groups, tables)
        ]

        def joined_table(counts: Sequence[int]) -> Table:
            used = (by_count[count] for by_count, count in zip(tables, counts))
            return joined(used, self._nodes.spare, self._nodes.size, self._costs.never)

        return self._found(parts, joined_table, _JOINING_EFFORT)

    def _of_sharing(self, nodes: Sequence[Node]) -> Tables:
        """The tables of nodes that share caches or cores; computed for each set of nodes."""
        parts = [Part((node,), dict.fromkeys(self._nodes.shares([node]), 0)) for node in nodes]

        def table_of_set(counts: Sequence[int]) -> Table:
            return self._on(node for node, count in zip(nodes, counts) if count)

        return self._found(parts, table_of_set, _SHARING_EFFORT)

    def _found(
        self, parts: Sequence[Part], table: Callable[[Sequence[int]], Table], effort_per_cpu: int
    ) -> Tables:
        """The tables of all these parts together, found by a search."""
        search = Search(self._nodes, self._costs, parts, table, effort_per_cpu)
        shares = self._nodes.shares([node for part in parts for node in part.nodes])
        return {count: search.table(count, share) for count, share in shares.items()}
