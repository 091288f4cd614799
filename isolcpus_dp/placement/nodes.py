"""Which NUMA nodes a choice may be on: as few as can hold it, and those as near to each other.

There may be very many such sets: of 16 nodes that are all equally near, 12,870 sets of 8. So they
are not listed but held as a graph. The nodes are decided on one after the other, and ways to
decide on the first ones that leave the same question open lead to the same state: as many nodes
are missing, and every undecided node is as far from those that were taken. Where nodes come in
groups (sockets, and quadrants within them) there are few states, however many nodes there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

# Up to this many states after a decision it takes longer to judge them than to keep them all.
_FEW = 32
# The safety valve: distances without any pattern, on more than twenty nodes, make more states than
# there is time for. Only those with the best prospects go on: so many, by the square of the nodes.
_MOST = 1_000_000
# What a way takes beside comparing costs, and a CPU in a table, in comparisons.
_FOR_ANY = 100


class Point(NamedTuple):
    """A sum of distances between nodes, and how many CPUs are available on them."""

    distance: int
    held: int


class State:
    """What is left open once the first nodes are decided on."""

    __slots__ = ("ahead", "distance", "held", "missing", "sums", "taking", "without")

    def __init__(self, missing: int, sums: tuple[int, ...], distance: int, held: int) -> None:
        self.missing = missing  # nodes still to be taken
        self.sums = sums  # how far each undecided node is from all that are taken
        # Of all ways to this state the least distance, and the most CPUs.
        self.distance = distance
        self.held = held
        # The states after the next node.
        self.without: State | None = None
        self.taking: State | None = None
        # What can be added from here on: the farther, the more CPUs.
        self.ahead: list[Point] = []

    @property
    def most_ahead(self) -> int:
        """The most CPUs that can be added."""
        return self.ahead[-1].held


class Way(NamedTuple):
    """A decision on some nodes."""

    start: State
    nodes: tuple[int | None, ...]  # those that are taken
    distance: int  # what they add to the sum
    end: State


class Nearest:
    """All the sets of nodes in question.

    Those that are found are the nearest unless a decision leads to too many states: see _MOST.
    """

    def __init__(
        self,
        machine: Machine,
        available: frozenset[int],
        must_include: frozenset[int],
        size: int,
    ) -> None:
        self._machine = machine
        self._size = size
        self._cpus: dict[int | None, list[int]] = defaultdict(list)  # the available ones by node
        for cpu in sorted(available):
            self._cpus[machine.cpus[cpu].node].append(cpu)
        self._forced = {machine.cpus[cpu].node for cpu in must_include}
        self._blocks = self._ordered(self._linked())
        self._free = [node for block in self._blocks for node in block if node not in self._forced]
        held = {node: len(cpus) for node, cpus in self._cpus.items()}
        self._held = [held[node] for node in self._free]
        # Of the nodes from each one on, what the largest 0, 1, 2… hold.
        self._largest = [
            _sums(sorted(self._held[step:], reverse=True)) for step in range(len(self._free) + 1)
        ]
        self._rows = [
            [0 if other == node else self._apart(node, other) for other in self._free]
            for node in self._free
        ]
        already = sum(held[node] for node in self._forced)
        missing = 0
        while already + self._largest[0][missing] < size:
            missing += 1
        # So many CPUs are left over at most.
        self.spare = already + self._largest[0][missing] - size
        sums = [sum(self._apart(node, other) for other in self._forced) for node in self._free]
        self._root = self._explored(missing, sums, already)
        self._least = next(
            point.distance for point in self._root.ahead if already + point.held >= size
        )

    def on(self, nodes: Iterable[int | None]) -> list[int]:
        """The available CPUs of these nodes."""
        return sorted(cpu for node in nodes for cpu in self._cpus[node])

    def sets(self) -> Iterator[tuple[int | None, ...]]:
        """One set after the other."""
        start = [Point(0, self._root.held)]
        for way, _ in self._onward(0, len(self._free), tuple(self._forced), self._root, start):
            yield way.nodes

    def ways(self, most: int) -> list[list[Way]]:
        """The ways to decide on each block of nodes that have a cache or a core in common.

        All sets in question are made up of them, but so are some that are farther or hold less.
        No ways at all if more than `most` costs would have to be compared for them.
        """
        all_ways = []
        tables = set()
        step = 0
        reached = {self._root: [Point(0, self._root.held)]}
        for block in self._blocks:
            forced = tuple(node for node in block if node in self._forced)
            stop = step + len(block) - len(forced)
            after: dict[State, list[Point]] = {}
            ways = []
            for state, points in reached.items():
                for way, beyond in self._onward(step, stop, forced, state, points):
                    ways.append(way)
                    after[way.end] = _worthwhile([*after.get(way.end, ()), *beyond])
                    most -= _FOR_ANY + self.spare**2 // 2
                    if way.nodes not in tables:
                        tables.add(way.nodes)
                        cpus = sum(len(self._cpus[node]) for node in way.nodes)
                        most -= _FOR_ANY * cpus + len(way.nodes) * self.spare**2 // 2
                    if most < 0:
                        return []
            all_ways.append(ways)
            step, reached = stop, after
        return all_ways

    def _onward(
        self,
        step: int,
        stop: int,
        nodes: tuple[int | None, ...],
        state: State,
        points: list[Point],
    ) -> Iterator[tuple[Way, list[Point]]]:
        """The ways to decide on the nodes up to `stop`, and how far one has got then."""
        unfinished = [(step, Way(state, nodes, 0, state), points)]
        while unfinished:
            step, way, points = unfinished.pop()
            state = way.end
            points = [point for point in points if self._leads(point, state)]
            if not points:
                continue
            if step == stop:
                yield way, points
                continue
            if state.without:
                unfinished.append((step + 1, way._replace(end=state.without), points))
            if state.taking:
                more, held = state.sums[0], self._held[step]
                nodes = (*way.nodes, self._free[step])
                longer = Way(way.start, nodes, way.distance + more, state.taking)
                beyond = [Point(point.distance + more, point.held + held) for point in points]
                unfinished.append((step + 1, longer, beyond))

    def _leads(self, point: Point, state: State) -> bool:
        """Whether a set in question can be completed from there."""
        distance, held = self._least - point.distance, self._size - point.held
        return any(more.distance <= distance and more.held >= held for more in state.ahead)

    def _apart(self, one: int | None, other: int | None) -> int:
        """There and back: that need not be the same."""
        return self._machine.distance(one, other) + self._machine.distance(other, one)

    def _linked(self) -> list[list[int | None]]:
        """The nodes in blocks, of those with a cache or a core in common: mostly each alone.

        Those that are in every set, be it one or many, are in one block.
        """
        blocks = {node: [node] for node in self._cpus}
        first: dict[frozenset[int], int | None] = {}
        for node, cpus in self._cpus.items():
            groups = {self._machine.cpus[cpu].cache for cpu in cpus}
            groups.update(self._machine.cpus[cpu].siblings for cpu in cpus)
            others = {first.setdefault(group, node) for group in groups}
            others |= self._forced if node in self._forced else set()
            for other in others:
                if blocks[other] is not blocks[node]:
                    blocks[other] += blocks[node]
                    blocks.update(dict.fromkeys(blocks[other], blocks[other]))
        return [block for node, block in blocks.items() if node == block[0]]

    def _ordered(self, blocks: Iterable[list[int | None]]) -> list[tuple[int | None, ...]]:
        """Those with forced nodes first, then always the one that is nearest to any before.

        That keeps groups together: a state need not remember of a group that is behind it how
        many nodes of which part of it were taken.
        """
        order: list[tuple[int | None, ...]] = []
        near = dict.fromkeys(map(tuple, blocks), 0)
        while near:
            first = min(near, key=lambda block: (self._forced.isdisjoint(block), near[block]))
            del near[first]
            for block, before in near.items():
                apart = min(self._apart(one, other) for one in first for other in block)
                near[block] = min(before, apart) if order else apart
            order.append(first)
        return order

    def _explored(self, missing: int, sums: Sequence[int], held: int) -> State:
        """The state in which nothing is decided yet, with all others after it."""
        best, whole = self._search(State(missing, tuple(sums), 0, held), _FEW)
        if whole:
            return best
        # A first look at few of them has found a set that others have to beat.
        most = next(point.distance for point in best.ahead if held + point.held >= self._size)
        width = max(len(sums), _MOST // len(sums) ** 2)
        other, _ = self._search(State(missing, tuple(sums), 0, held), width, most)
        return other if any(held + more.held >= self._size for more in other.ahead) else best

    def _search(self, root: State, width: int, most: int | None = None) -> tuple[State, bool]:
        """Puts the states after `root`, at most `width` at a time; says if those were all."""
        whole = True
        layers = [[root]]
        for step in range(len(self._free)):
            after: dict[tuple[int, tuple[int, ...]], State] = {}
            for state in layers[-1]:
                self._decide(step, state, after)
            states = list(after.values())
            if len(states) > _FEW:
                bounds = self._bounds(step + 1, states)
                if most is not None:
                    states = [state for state in states if bounds[state] <= most]
                if len(states) > width:
                    states = sorted(states, key=bounds.__getitem__)[:width]
                    whole = False
                for state in bounds.keys() - {*states}:
                    state.sums = ()
            layers.append(states)
        for state in layers.pop():
            state.ahead = [Point(0, 0)]
        for step in reversed(range(len(self._free))):
            for state in layers[step]:
                ahead = list(state.without.ahead) if state.without else []
                if state.taking:
                    more, held = state.sums[0], self._held[step]
                    ahead += [
                        Point(distance + more, others + held)
                        for distance, others in state.taking.ahead
                    ]
                state.ahead = _worthwhile(ahead)
        return root, whole

    def _decide(
        self, step: int, state: State, after: dict[tuple[int, tuple[int, ...]], State]
    ) -> None:
        """Takes a node, and leaves it out, as far as a set can still be completed."""

        def reached(missing: int, sums: tuple[int, ...], distance: int, held: int) -> State | None:
            if missing > len(rest) or held + largest[missing] < self._size:
                return None
            sums = sums if missing else ()
            found = after.get((missing, sums))
            if found is None:
                found = after[missing, sums] = State(missing, sums, distance, held)
            else:
                found.distance = min(found.distance, distance)
                found.held = max(found.held, held)
            return found

        rest, largest = self._rows[step][step + 1 :], self._largest[step + 1]
        sums, distance, held = state.sums[1:], state.distance, state.held
        state.without = reached(state.missing, sums, distance, held)
        if state.missing:
            sums = tuple(map(int.__add__, sums, rest))
            distance += state.sums[0]
            state.taking = reached(state.missing - 1, sums, distance, held + self._held[step])
        # Of a long search the sums are most of the memory, and only the first is asked for again.
        state.sums = state.sums[:1]

    def _bounds(self, step: int, states: Iterable[State]) -> dict[State, int]:
        """No set that is completed from a state has a smaller sum of distances.

        Each node that is added is as far as it is from those taken, and at least as far from the
        others added as from those next to it; each pair of these is counted from both ends.
        """
        # Of each node that is left, itself first, how far the nearest 1, 2… are together.
        near = [_sums(sorted(row[step:]))[1:] for row in self._rows[step:]]
        bounds = {}
        for state in states:
            missing = state.missing
            added = sorted(2 * apart + sums[missing - 1] for apart, sums in zip(state.sums, near))
            bounds[state] = state.distance - -sum(added[:missing]) // 2
        return bounds


def _worthwhile(points: list[Point]) -> list[Point]:
    """Only those with more CPUs than all that are as near; the nearest first."""
    if len(points) < 2:
        return points
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.distance, -point.held)):
        if not kept or point.held > kept[-1].held:
            kept.append(point)
    return kept


def _sums(numbers: Iterable[int]) -> list[int]:
    sums = [0]
    for number in numbers:
        sums.append(sums[-1] + number)
    return sums
