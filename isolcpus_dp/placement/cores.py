"""The cost of a choice by the rule, and the tables of NUMA nodes from their caches and cores.

A cost is one integer. It has one digit of 20 bits for each count of the rule; the first count is
the highest digit. Below the digits is one bit for each available CPU, which is subtracted if the
CPU is chosen. So adding costs adds all counts, comparing costs compares the counts in the order of
the rule, and the CPUs of a choice can be read from its cost.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from isolcpus_dp.placement.tables import Table, joined

if TYPE_CHECKING:
    from isolcpus_dp.config import Placement
    from isolcpus_dp.host.machine import Cpu, Machine

# The bits of a digit: enough for any count, because Linux has at most 8192 CPUs. The distance, the
# highest digit, may be larger: _NEVER is five digits above it.
_DIGIT_BITS = 20

# The positions of the digits, from the lowest one.
_CACHE_LEFT, _NODE_LEFT, _FOURTH, _THIRD, _CACHES, _DISTANCE = range(6)
_NEVER = 10


class Costs:
    """The costs for one call of choose()."""

    def __init__(
        self,
        machine: Machine,
        available: frozenset[int],
        must_include: frozenset[int],
        size: int,
        placement: Placement,
        spare: int,
    ) -> None:
        """`spare` is the largest number of available CPUs that remain on the nodes of a choice."""
        self._machine = machine
        self._must_include = must_include
        self._size = size
        self._spare = spare
        self._packed = placement == "packed"
        self._cpus = sorted(available)
        # Lower CPU numbers have higher bits. So of two sets of CPUs, the one with the greater sum
        # of bits is the lower one, compared as sorted lists.
        self._bit = {cpu: 1 << place for place, cpu in enumerate(reversed(self._cpus))}
        # More than the cost of any choice.
        self.never = self._digit(_NEVER)
        # The cost of a distance of one.
        self.distance = self._digit(_DISTANCE)
        # Takes the CPUs of a core or of a cache, and returns the available ones.
        self._available = functools.lru_cache(maxsize=None)(available.intersection)
        self._tables: dict[tuple[int, ...], Table] = {}

    def choice(self, cost: int) -> frozenset[int]:
        """The CPUs of the choice with this cost."""
        bits = -cost % self._digit(0)
        return frozenset(cpu for cpu in self._cpus if bits & self._bit[cpu])

    def _digit(self, place: int) -> int:
        """The cost of a count of one in the digit at this position."""
        return 1 << len(self._cpus) + _DIGIT_BITS * place

    def table(self, cpus: list[int]) -> Table:
        """The table of NUMA nodes; `cpus` are all available CPUs on them, in ascending order.

        All of these nodes count as used if any of the CPUs is taken.
        """
        parts = defaultdict(list)
        for cpu in cpus:
            parts[self._widest(self._machine.cpus[cpu])].append(cpu)
        table = self._joined(self._part(tuple(part)) for part in parts.values())
        # Counts all available CPUs of the nodes: the taken ones are equally many in every choice.
        return _with_use(table, len(cpus) * self._digit(_NODE_LEFT))

    def _widest(self, place: Cpu) -> frozenset[int]:
        """The cache of a CPU, or its core if the core has several caches.

        Without cache information each CPU has its own cache, so that a core has several.
        """
        if place.siblings <= place.cache:
            return place.cache
        return max(place.cache, place.siblings, key=lambda group: len(self._available(group)))

    def _part(self, cpus: tuple[int, ...]) -> Table:
        """The table of a cache, or of a core with several caches."""
        if cpus not in self._tables:
            caches = defaultdict(list)
            for cpu in cpus:
                caches[self._machine.cpus[cpu].cache].append(cpu)
            if len(caches) == 1:
                table = self._cache(self._joined(self._cores(cpus)), cpus)
            else:
                parts = (self._cache(self._threads(part), part) for part in caches.values())
                table = self._core(self._joined(parts), cpus[0])
            self._tables[cpus] = table
        return self._tables[cpus]

    def _cache(self, table: Table, cpus: Sequence[int]) -> Table:
        """Adds the cost of the cache to the table of these CPUs of a cache."""
        available = len(self._available(self._machine.cpus[cpus[0]].cache))
        return _with_use(table, self._digit(_CACHES) + available * self._digit(_CACHE_LEFT))

    def _cores(self, cpus: Iterable[int]) -> Iterator[Table]:
        """The tables of the cores of these CPUs. Similar cores have a common table."""
        cores = defaultdict(list)
        for cpu in cpus:
            cores[self._machine.cpus[cpu].siblings].append(cpu)
        similar = defaultdict(list)
        for siblings, threads in cores.items():
            available = len(self._available(siblings))
            free = len(threads) == available and self._must_include.isdisjoint(threads)
            if free and (self._packed or available <= 2):
                similar[available, available < len(siblings)].append(threads)
            else:
                yield self._core(self._threads(threads), threads[0])
        for (_, shared), group in similar.items():
            yield (
                self._packed_cores(group)
                if self._packed
                else self._spread_cores(group, shared=shared)
            )

    def _packed_cores(self, cores: list[list[int]]) -> Table:
        """The table of cores with the same number of threads, none of which must be included.

        The best choice takes whole cores in ascending order, and splits at most one core. It leaves
        out the highest threads of that core, which is the one where these have the highest numbers.
        """
        threads = len(cores[0])
        core_costs = [self._core_cost(taken, threads, shared=False) for taken in range(threads + 1)]
        costs = [0]
        all_bits = 0  # of all threads of the cores so far
        left_bits: list[int] = []  # of the best 0, 1, 2... threads to leave out
        for count, core in enumerate(sorted(cores), 1):
            highest = (self._bit[cpu] for cpu in reversed(core))
            bits = list(itertools.accumulate(highest, initial=0))
            left_bits = list(map(min, bits, left_bits)) if left_bits else bits
            all_bits += bits[threads]
            whole_cores = (count - 1) * core_costs[threads]
            costs += [
                whole_cores + core_costs[taken] - all_bits + left_bits[threads - taken]
                for taken in range(1, threads + 1)
            ]
        return Table(0, costs)

    def _spread_cores(self, cores: list[list[int]], *, shared: bool) -> Table:
        """The table of cores with one thread each, or two each, none of which must be included.

        The best choice takes the first threads of all cores in ascending order, then the second
        ones. With `shared`, the cores also have threads that are not available.
        """
        bits = 0
        costs = [0]
        for rank in range(len(cores[0])):
            for cpu in sorted(core[rank] for core in cores):
                bits += self._bit[cpu]
                taken = len(costs)
                third = max(0, taken - len(cores)) * self._digit(_THIRD)
                fourth = taken * shared * self._digit(_FOURTH)
                costs.append(third + fourth - bits)
        return Table(0, costs)

    def _threads(self, cpus: Sequence[int]) -> Table:
        """The table of threads of one core, without the cost of the core."""
        order = sorted(cpus, key=lambda cpu: (cpu not in self._must_include, cpu))
        required = sum(1 for cpu in cpus if cpu in self._must_include)
        sums = itertools.accumulate((self._bit[cpu] for cpu in order), initial=0)
        return Table(required, [-bits for bits in sums][required:])

    def _core(self, threads: Table, cpu: int) -> Table:
        """The table of the core of a CPU, from the table of its threads."""
        siblings = self._machine.cpus[cpu].siblings
        available = len(self._available(siblings))
        shared = available < len(siblings)
        costs = [
            cost + self._core_cost(taken, available, shared=shared)
            for taken, cost in enumerate(threads.costs, threads.first)
        ]
        return Table(threads.first, costs)

    def _core_cost(self, taken: int, available: int, *, shared: bool) -> int:
        """The cost, by 3. and 4., of taking this number of the available threads of a core."""
        if self._packed:
            third, fourth = int(taken > 0), int(0 < taken < available)
        else:
            third, fourth = int(taken > 1), taken if shared else 0
        return third * self._digit(_THIRD) + fourth * self._digit(_FOURTH)

    def _joined(self, tables: Iterable[Table]) -> Table:
        return joined(tables, self._spare, self._size, self.never)


def _with_use(table: Table, more: int) -> Table:
    """Adds the cost of using a part at all, to all numbers of CPUs but 0."""
    costs = [cost + more for cost in table.costs]
    if table.first == 0:
        costs[0] = table.costs[0]
    return Table(table.first, costs)
