"""Tables of the lowest cost of taking a number of CPUs from a part of the machine.

The tables of two parts are joined to one, as in the dynamic programming solution of the knapsack
problem.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """The costs of taking `first` CPUs, one more, two more..."""

    first: int
    costs: Sequence[int]

    @property
    def last(self) -> int:
        """The highest number of CPUs in the table."""
        return self.first + len(self.costs) - 1


def joined(tables: Iterable[Table], spare: int, size: int, never: int) -> Table:
    """The table of all parts together.

    It covers the numbers of CPUs up to `size` that leave at most `spare` CPUs of the parts. `never`
    is the cost of impossible choices.
    """
    whole, most = Table(0, [0]), 0
    for table in tables:
        most += table.last
        fewest = max(whole.first + table.first, most - spare)
        best = [never] * (min(most, size) - fewest + 1)
        join(whole, table, fewest, best)
        whole = Table(fewest, best)
    return whole


def join(one: Table, other: Table, fewest: int, best: list[int], more: int = 0) -> None:
    """Lowers `best`, the costs of `fewest` CPUs, one more..., to those of two parts together.

    `more` is an additional cost of using both parts.
    """
    if len(one.costs) < len(other.costs):
        one, other = other, one
    most = fewest + len(best) - 1
    for taken, cost in enumerate(other.costs, other.first):
        start, stop = max(one.first, fewest - taken), min(one.last, most - taken) + 1
        if start >= stop:
            continue
        cost += more
        costs = one.costs[start - one.first : stop - one.first]
        sums = slice(start + taken - fewest, stop + taken - fewest)
        best[sums] = [
            new if (new := cost + added) < old else old for added, old in zip(costs, best[sums])
        ]
