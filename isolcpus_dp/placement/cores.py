"""What a choice costs by the rule, and the tables of caches and cores.

A cost is one integer whose digits are the rule's counts, and whose lowest digits are a bit for
every CPU: adding costs adds all counts, comparing them compares in the rule's order, and the
chosen CPUs can be read off it.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from isolcpus_dp.placement.tables import Table, joined

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Cpu, Machine

# A digit of a cost: no count comes near it, as no kernel has more than 8192 CPUs. Sums of
# distances may need several.
_DIGIT = 20

# The digits above the CPUs' bits, by their place.
_CACHE_LEFT, _NODE_LEFT, _FOURTH, _THIRD, _CACHES, _DISTANCE = range(6)
_NEVER = 10


class Costs:
    """The costs of one call of choose()."""

    def __init__(
        self,
        machine: Machine,
        available: frozenset[int],
        must_include: frozenset[int],
        size: int,
        placement: str,
        spare: int,
    ) -> None:
        """`spare`: how many CPUs are left over at most, of the NUMA nodes that a choice is on."""
        self._must = must_include
        self._size = size
        self._spare = spare
        self._packed = placement == "packed"
        self._cpus = sorted(available)
        # The lower a CPU's number, the higher its bit: of two sets the one with the greater mask
        # comes first as a sorted list.
        self._bit = {cpu: 1 << place for place, cpu in enumerate(reversed(self._cpus))}
        self.never = self._digit(_NEVER)
        self.distance = self._digit(_DISTANCE)
        self._machine = machine
        # The available ones of the CPUs of a core, or of a cache.
        self._available = functools.lru_cache(maxsize=None)(available.intersection)
        self._tables: dict[tuple[int, ...], Table] = {}

    def choice(self, cost: int) -> frozenset[int]:
        """The CPUs of a choice with this cost."""
        mask = -cost % self._digit(0)
        return frozenset(cpu for cpu in self._cpus if mask & self._bit[cpu])

    def _digit(self, place: int) -> int:
        """A cost of one in a digit."""
        return 1 << len(self._cpus) + _DIGIT * place

    def table(self, cpus: list[int]) -> Table:
        """The table of some NUMA nodes, of which these CPUs are available, the lowest first."""
        parts = defaultdict(list)
        for cpu in cpus:
            parts[self._widest(self._machine.cpus[cpu])].append(cpu)
        tables = (self._part(tuple(part)) for part in parts.values())
        table = self._joined(tables)
        touched = len(cpus) * self._digit(_NODE_LEFT)
        return _dearer(table, touched)

    def _widest(self, place: Cpu) -> frozenset[int]:
        """The cache of a CPU, or its core if that has several: so it looks if none are told."""
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
                table = self._touched(self._joined(self._cores(cpus)), cpus)
            else:
                parts = (self._touched(self._threads(part), part) for part in caches.values())
                table = self._core(self._joined(parts), cpus[0])
            self._tables[cpus] = table
        return self._tables[cpus]

    def _touched(self, table: Table, cpus: Sequence[int]) -> Table:
        """The table of a part of a cache, with what it costs to touch that."""
        left = len(self._available(self._machine.cpus[cpus[0]].cache))
        return _dearer(table, self._digit(_CACHES) + left * self._digit(_CACHE_LEFT))

    def _cores(self, cpus: Iterable[int]) -> Iterator[Table]:
        """The tables of the cores of these CPUs; cores that are alike have one together."""
        cores = defaultdict(list)
        for cpu in cpus:
            cores[self._machine.cpus[cpu].siblings].append(cpu)
        alike = defaultdict(list)
        for siblings, threads in cores.items():
            held = len(self._available(siblings))
            whole = len(threads) == held and self._must.isdisjoint(threads)
            if whole and (self._packed or held <= 2):
                alike[held, held < len(siblings)].append(threads)
            else:
                yield self._core(self._threads(threads), threads[0])
        for (_, shared), some in alike.items():
            yield self._packed_cores(some) if self._packed else self._spread_cores(some, shared)

    def _packed_cores(self, cores: list[list[int]]) -> Table:
        """The table of cores with equally many threads, none of which must be included.

        As few cores as possible are taken, from the lowest on, as whole ones but for one; that is
        the one whose upper threads are the highest.
        """
        held, costs, whole = len(cores[0]), [0], 0
        of_core = [self._core_cost(taken, held, shared=False) for taken in range(held + 1)]
        upper: list[int] = []  # the masks of the upper 0, 1, 2… threads that are best left out
        for count, core in enumerate(sorted(cores), 1):
            bits = [self._bit[cpu] for cpu in core]
            masks = list(itertools.accumulate(reversed(bits), initial=0))
            upper = list(map(min, masks, upper)) if upper else masks
            whole += masks[held]
            costs += [
                of_core[taken] + (count - 1) * of_core[held] - whole + upper[held - taken]
                for taken in range(1, held + 1)
            ]
        return Table(0, costs)

    def _spread_cores(self, cores: list[list[int]], shared: bool) -> Table:
        """The table of cores with one thread each, or with two, none of which must be included.

        First threads come first, from the lowest on, then the second ones.
        """
        masks = 0
        costs = [0]
        for rank in range(len(cores[0])):
            for cpu in sorted(core[rank] for core in cores):
                masks += self._bit[cpu]
                doubled = max(0, len(costs) - len(cores))
                third = doubled * self._digit(_THIRD)
                fourth = len(costs) * shared * self._digit(_FOURTH)
                costs.append(third + fourth - masks)
        return Table(0, costs)

    def _threads(self, cpus: Sequence[int]) -> Table:
        """The table of threads of a core, without the cost of the core."""
        order = sorted(cpus, key=lambda cpu: (cpu not in self._must, cpu))
        forced = sum(1 for cpu in cpus if cpu in self._must)
        masks = itertools.accumulate((self._bit[cpu] for cpu in order), initial=0)
        return Table(forced, [-mask for mask in masks][forced:])

    def _core(self, threads: Table, cpu: int) -> Table:
        """The table of the core of a CPU."""
        siblings = self._machine.cpus[cpu].siblings
        held = len(self._available(siblings))
        return Table(
            threads.first,
            [
                cost + self._core_cost(taken, held, held < len(siblings))
                for taken, cost in enumerate(threads.costs, threads.first)
            ],
        )

    def _core_cost(self, taken: int, held: int, shared: bool) -> int:
        if self._packed:
            third, fourth = int(taken > 0), int(0 < taken < held)
        else:
            third, fourth = int(taken > 1), taken if shared else 0
        return third * self._digit(_THIRD) + fourth * self._digit(_FOURTH)

    def _joined(self, tables: Iterable[Table]) -> Table:
        return joined(tables, self._spare, self._size, self.never)


def _dearer(table: Table, more: int) -> Table:
    """Each number of CPUs costs more, except none."""
    costs = [cost + more for cost in table.costs]
    if table.first == 0:
        costs[0] = table.costs[0]
    return Table(table.first, costs)
