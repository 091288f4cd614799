"""Tables of what taking a number of CPUs from a part of the machine costs at least.

The tables of two parts make the table of both: the knapsack problem's dynamic programming.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """The costs of taking `first` CPUs, one more, two more…"""

    first: int
    costs: Sequence[int]

    @property
    def last(self) -> int:
        return self.first + len(self.costs) - 1


def joined(tables: Iterable[Table], spare: int, size: int, never: int) -> Table:
    """The table of all parts together, as far as at most `spare` CPUs are left in them."""
    whole, held = Table(0, [0]), 0
    for table in tables:
        held += table.last
        fewest = max(whole.first + table.first, held - spare)
        best = [never] * (min(held, size) - fewest + 1)
        join(whole, table, fewest, best)
        whole = Table(fewest, best)
    return whole


def join(one: Table, other: Table, fewest: int, best: list[int], more: int = 0) -> None:
    """Lowers `best`, the costs of `fewest` CPUs and so on, to those of two parts and `more`."""
    if len(one.costs) < len(other.costs):
        one, other = other, one
    most = fewest + len(best) - 1
    for taken, cost in enumerate(other.costs, other.first):
        start, stop = max(one.first, fewest - taken), min(one.last, most - taken) + 1
        if start >= stop:
            continue
        cost += more
        costs = one.costs[start - one.first : stop - one.first]
        into = slice(start + taken - fewest, stop + taken - fewest)
        best[into] = [
            new if (new := cost + old) < held else held for old, held in zip(costs, best[into])
        ]
