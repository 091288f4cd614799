"""The axes that all histograms of a picture share, both logarithmic, and the bars between them.

Positions are in pixels from the left and from the bottom of a plot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# Half a microsecond, where the bar of the first microsecond begins.
_SHORTEST = math.log10(0.5)
# A single event must be visible: the axis begins below 1.
_BELOW_ONE = 0.4
_NARROWEST_BAR = 2  # pixels
_LABEL_WIDTH = 23  # of `100` beside `100k`, and a gap


@dataclass(frozen=True)
class Bar:
    """One bar: where it begins, how wide it is, and how high."""

    x: float
    width: float
    height: float


@dataclass(frozen=True)
class Axes:
    """The size of a plot, and the powers of ten at the ends of its axes."""

    width: int
    height: int
    length_decades: int
    count_decades: int

    def x(self, length_us: float) -> float:
        """Where a length is on the horizontal axis; lengths outside are at its ends."""
        exponent = math.log10(length_us) if length_us > 0 else _SHORTEST
        share = (exponent - _SHORTEST) / (self.length_decades - _SHORTEST)
        return min(max(share, 0), 1) * self.width

    def y(self, count: int) -> float:
        """How high a count is on the vertical axis."""
        if count < 1:
            return 0
        share = (math.log10(count) + _BELOW_ONE) / (self.count_decades + _BELOW_ONE)
        return min(share, 1) * self.height

    def edge(self, limit_us: float) -> float:
        """Between the bar of the last length within a limit and the bar of the next one."""
        return self.x(math.floor(limit_us) + 0.5)

    def lengths(self) -> Iterator[int]:
        """The lengths in us that have a label: powers of ten, as many as there is room for."""
        step = math.ceil(_LABEL_WIDTH * self.length_decades / self.width)
        return (10**exponent for exponent in range(0, self.length_decades + 1, step))

    def counts(self) -> Iterator[int]:
        """The counts that have a label: every third power of ten."""
        return (10**exponent for exponent in range(0, self.count_decades + 1, 3))

    def bars(self, counts: Mapping[int, int]) -> Iterator[Bar]:
        """The bars of a histogram, from the shortest length to the longest.

        A bar is one microsecond wide. Where that is too narrow to be seen, lengths share a bar.
        """
        slots: dict[int, int] = {}
        for length in sorted(length for length, count in counts.items() if count > 0):
            x, width = self._extent(length)
            if width >= _NARROWEST_BAR:
                yield Bar(x, width, self.y(counts[length]))
            else:
                slot = int((x + width / 2) / _NARROWEST_BAR)
                slots[slot] = slots.get(slot, 0) + counts[length]
        for slot, count in slots.items():
            yield Bar(slot * _NARROWEST_BAR, _NARROWEST_BAR, self.y(count))

    def _extent(self, length: int) -> tuple[float, float]:
        left = self.x(length - 0.5)
        return left, self.x(length + 0.5) - left


def fitting(width: int, height: int, lengths_us: Iterable[float], counts: Iterable[int]) -> Axes:
    """The axes on which these lengths and counts have a place."""
    # Half a microsecond more: the bar of the longest has a right half.
    longest = max(lengths_us, default=0) + 0.5
    most = max(counts, default=0)
    return Axes(width, height, _decades(longest), _decades(most))


def _decades(value: float) -> int:
    """The power of ten that is no less than the value, as its exponent; at least 1."""
    return max(math.ceil(math.log10(value)), 1) if value > 0 else 1


def short(number: int) -> str:
    """A power of ten in at most four characters, as `1`, `100`, `10k` or `1M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number // size}{unit}"
    return str(number)
