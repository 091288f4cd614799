"""Which CPUs of a pool a container should get: plain functions over a Machine.

Of all choices the one that is least by a stated rule, found exactly. Of the available CPUs A, a
choice S of the wanted size, with all that must be in it, is least in this order:

1. NUMA nodes touched; among equally many, the sum of the distances between them
2. last-level caches touched
3. packed: cores touched; spread: cores with two or more threads in S
4. packed: cores broken, of which S takes some but not all of the threads in A;
   spread: threads of S on a core that has a thread outside A, somebody else's
5. CPUs of A left over in the touched NUMA nodes, then in the touched caches
6. the CPU numbers, compared as sorted lists

How: no choice on the least number of nodes leaves one of them untouched, so for a given set of
nodes only the rest of the rule is open, and that adds up over caches and cores. A table says of a
part of the machine what taking 0, 1, 2… of its CPUs costs at least; the tables of two parts make
the table of both (the knapsack problem's dynamic programming). A cost is one integer whose digits
are the rule's counts, and whose lowest digits are a bit for every CPU: adding costs adds all
counts, comparing them compares in the rule's order, and the chosen CPUs can be read off it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from isolcpus_dp.machine import Machine

PLACEMENTS = ("packed", "spread")

# A digit of a cost: no count comes near it, as no kernel has more than 8192 CPUs.
_DIGIT = 20

# The digits above the CPUs' bits, by their place.
_CACHE_LEFT, _NODE_LEFT, _FOURTH, _THIRD, _CACHES, _NEVER = range(6)


def choose(
    machine: Machine,
    available: frozenset[int],
    must_include: frozenset[int],
    size: int,
    placement: str = "packed",
) -> frozenset[int]:
    """`size` CPUs of `available`, all of `must_include` among them; `placement` is of PLACEMENTS.

    Expects must_include within available and len(must_include) <= size <= len(available).
    The time grows with the square of the CPUs at worst, and with the number of sets of NUMA nodes
    that are equally few and equally near.
    """
    return _Choice(machine, available, must_include, size, placement).made()


class _Table(NamedTuple):
    """What taking a number of CPUs from a part of the machine costs at least, from `first` on."""

    first: int
    costs: Sequence[int]

    @property
    def last(self) -> int:
        return self.first + len(self.costs) - 1


class _Choice:
    """One call of choose()."""

    def __init__(
        self,
        machine: Machine,
        available: frozenset[int],
        must_include: frozenset[int],
        size: int,
        placement: str,
    ) -> None:
        self._machine = machine
        self._must = must_include
        self._size = size
        self._packed = placement == "packed"
        self._cpus = sorted(available)
        # The lower a CPU's number, the higher its bit: of two sets the one with the greater mask
        # comes first as a sorted list.
        self._bit = {cpu: 1 << place for place, cpu in enumerate(reversed(self._cpus))}
        self._never = self._digit(_NEVER)
        self._in_cache = Counter(machine.cpus[cpu].cache for cpu in available)
        self._nodes: dict[int | None, list[int]] = defaultdict(list)
        for cpu in self._cpus:
            self._nodes[machine.cpus[cpu].node].append(cpu)
        self._tables: dict[tuple[int, ...], _Table] = {}

    def made(self) -> frozenset[int]:
        node_sets = self._nearest()
        self._most_spare = max(self._held(nodes) for nodes in node_sets) - self._size
        bounds = sorted((self._bound(nodes), at) for at, nodes in enumerate(node_sets))
        best = self._never
        for bound, at in bounds:
            if bound >= best:
                break
            best = min(best, self._least(node_sets[at]))
        mask = -best % self._digit(0)
        return frozenset(cpu for cpu in self._cpus if mask & self._bit[cpu])

    def _digit(self, place: int) -> int:
        """A cost of one in a digit."""
        return 1 << len(self._cpus) + _DIGIT * place

    def _held(self, nodes: Iterable[int | None]) -> int:
        return sum(len(self._nodes[node]) for node in nodes)

    # 1. the NUMA nodes

    def _nearest(self) -> list[tuple[int | None, ...]]:
        """Of all sets of as few NUMA nodes as can hold the choice, the nearest to each other."""
        forced = tuple({self._machine.cpus[cpu].node for cpu in self._must})
        others = sorted(self._nodes.keys() - {*forced}, key=lambda node: -self._held([node]))
        count = 0
        while self._held((*forced, *others[:count])) < self._size:
            count += 1
        pairs = list(itertools.permutations(self._nodes, 2))
        least = min((self._machine.distance(*pair) for pair in pairs), default=0)
        nearest: list[tuple[int | None, ...]] = []
        best = None
        # Sets to be completed: the nodes, what may be added to them, and their distances.
        unfinished = [(forced, others, self._between(forced))]
        while unfinished:
            nodes, more, between = unfinished.pop()
            missing = len(forced) + count - len(nodes)
            outside = len(nodes) * missing + missing * (missing - 1) // 2
            if best is not None and between + 2 * least * outside > best:
                continue
            if not missing:
                nearest = [] if best is None or between < best else nearest
                nearest.append(nodes)
                best = between
            # Those with the most CPUs are first: if they do not suffice, none of the others do.
            for at in reversed(range(len(more) - missing + 1 if missing else 0)):
                if self._held((*nodes, *more[at : at + missing])) >= self._size:
                    longer = (*nodes, more[at])
                    unfinished.append((longer, more[at + 1 :], self._between(longer)))
        return nearest

    def _between(self, nodes: tuple[int | None, ...]) -> int:
        """The sum of the distances of all pairs, there and back."""
        return sum(itertools.starmap(self._machine.distance, itertools.permutations(nodes, 2)))

    def _bound(self, nodes: tuple[int | None, ...]) -> int:
        """No choice on these nodes costs less: digit by digit, what can be told by counting."""
        cpus = [cpu for node in nodes for cpu in self._nodes[node]]
        caches = Counter(self._machine.cpus[cpu].cache for cpu in cpus)
        cores = Counter(self._machine.cpus[cpu].siblings for cpu in cpus)
        count = _fewest(caches.values(), self._size)
        if self._packed:
            third = _fewest(cores.values(), self._size)
            fourth = self._size % functools.reduce(math.gcd, cores.values(), 0) > 0
        else:
            # One thread of every core in as many caches; what is more doubles a thread.
            in_cache = Counter(self._machine.cpus[min(core)].cache for core in cores)
            single = sum(sorted(in_cache.values(), reverse=True)[:count])
            third = _fewest((held - 1 for held in cores.values()), self._size - single)
            fourth = False
        in_caches = sum(sorted(self._in_cache[cache] for cache in caches)[:count])
        lowest = sum(self._bit[cpu] for cpu in cpus)
        for _ in range(len(cpus) - self._size):
            lowest &= lowest - 1
        return (
            count * self._digit(_CACHES)
            + third * self._digit(_THIRD)
            + fourth * self._digit(_FOURTH)
            + (len(cpus) - self._size) * self._digit(_NODE_LEFT)
            + max(self._size, in_caches) * self._digit(_CACHE_LEFT)
            - lowest
        )

    # 2. to 6. the caches and cores of a set of nodes

    def _least(self, nodes: tuple[int | None, ...]) -> int:
        """What the best choice on these nodes costs."""
        cpus = [cpu for node in nodes for cpu in self._nodes[node]]
        caches = defaultdict(list)
        for cpu in cpus:
            caches[self._machine.cpus[cpu].cache].append(cpu)
        spare = len(cpus) - self._size
        table = self._joined((self._cache(tuple(part)) for part in caches.values()), spare)
        return table.costs[self._size - table.first] + spare * self._digit(_NODE_LEFT)

    def _cache(self, cpus: tuple[int, ...]) -> _Table:
        """The table of a cache: of the part of it that lies on the nodes in question."""
        if cpus not in self._tables:
            table = self._joined(self._cores(cpus), self._most_spare)
            held = self._in_cache[self._machine.cpus[cpus[0]].cache]
            touched = self._digit(_CACHES) + held * self._digit(_CACHE_LEFT)
            costs = [cost + touched for cost in table.costs]
            if table.first == 0:
                costs[0] = 0
            self._tables[cpus] = _Table(table.first, costs)
        return self._tables[cpus]

    def _cores(self, cpus: Iterable[int]) -> Iterator[_Table]:
        """The tables of the cores of these CPUs; cores that are alike have one together."""
        cores = defaultdict(list)
        for cpu in cpus:
            cores[self._machine.cpus[cpu].siblings].append(cpu)
        alike = defaultdict(list)
        for siblings, threads in cores.items():
            shared = not siblings <= self._bit.keys()
            if self._must.isdisjoint(threads) and (self._packed or len(threads) <= 2):
                alike[len(threads), shared].append(threads)
            else:
                yield self._core(threads, shared)
        for (_, shared), some in alike.items():
            yield self._packed_cores(some) if self._packed else self._spread_cores(some, shared)

    def _packed_cores(self, cores: list[list[int]]) -> _Table:
        """The table of cores with equally many threads, none of which must be included.

        As few cores as possible are taken, from the lowest on, as whole ones but for one; that is
        the one whose upper threads are the highest.
        """
        held, costs, whole = len(cores[0]), [0], 0
        upper: list[int] = []  # the masks of the upper 0, 1, 2… threads that are best left out
        for count, core in enumerate(sorted(cores), 1):
            bits = [self._bit[cpu] for cpu in core]
            masks = list(itertools.accumulate(reversed(bits), initial=0))
            upper = list(map(min, masks, upper)) if upper else masks
            whole += masks[held]
            costs += [
                self._core_cost(taken, held, shared=False)
                + (count - 1) * self._core_cost(held, held, shared=False)
                - whole
                + upper[held - taken]
                for taken in range(1, held + 1)
            ]
        return _Table(0, costs)

    def _spread_cores(self, cores: list[list[int]], shared: bool) -> _Table:
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
        return _Table(0, costs)

    def _core(self, cpus: list[int], shared: bool) -> _Table:
        """The table of a core, of whose threads `cpus` are available."""
        order = sorted(cpus, key=lambda cpu: (cpu not in self._must, cpu))
        forced = sum(1 for cpu in cpus if cpu in self._must)
        masks = itertools.accumulate((self._bit[cpu] for cpu in order), initial=0)
        return _Table(
            forced,
            [
                self._core_cost(taken, len(cpus), shared) - mask
                for taken, mask in enumerate(masks)
                if taken >= forced
            ],
        )

    def _core_cost(self, taken: int, held: int, shared: bool) -> int:
        if self._packed:
            third, fourth = int(taken > 0), int(0 < taken < held)
        else:
            third, fourth = int(taken > 1), taken if shared else 0
        return third * self._digit(_THIRD) + fourth * self._digit(_FOURTH)

    def _joined(self, tables: Iterable[_Table], spare: int) -> _Table:
        """The table of all parts together, as far as at most `spare` CPUs are left in them."""
        whole, held = _Table(0, [0]), 0
        for table in tables:
            held += table.last
            fewest = max(whole.first + table.first, held - spare)
            whole = _join(whole, table, fewest, min(held, self._size), self._never)
        return whole


def _join(one: _Table, other: _Table, fewest: int, most: int, never: int) -> _Table:
    """The table of two parts together, for `fewest` to `most` CPUs."""
    if len(one.costs) < len(other.costs):
        one, other = other, one
    best = [never] * (most - fewest + 1)
    for taken, cost in enumerate(other.costs, other.first):
        start, stop = max(one.first, fewest - taken), min(one.last, most - taken) + 1
        if start >= stop:
            continue
        costs = one.costs[start - one.first : stop - one.first]
        into = slice(start + taken - fewest, stop + taken - fewest)
        best[into] = [
            new if (new := cost + old) < held else held for old, held in zip(costs, best[into])
        ]
    return _Table(fewest, best)


def _fewest(sizes: Iterable[int], size: int) -> int:
    """How many parts of these sizes hold `size` CPUs, at least."""
    count = 0
    for held in sorted(sizes, reverse=True):
        if size <= 0:
            break
        size -= held
        count += 1
    return count
