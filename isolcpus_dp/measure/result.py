"""The result of a measurement. Plain data; `session` makes it, `show/` prints it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.measure.activity import Recording

# The bucket that also has all iterations that were longer.
LAST_BUCKET_US = 1024


@dataclass(frozen=True)
class Histogram:
    """How long the iterations of the busy loop took on one CPU.

    An iteration that takes longer than the others was interrupted.
    """

    # By the length of an iteration in whole microseconds, rounded up: how many there were.
    counts: Mapping[int, int]
    longest_us: float
    seconds: float

    def quantile_us(self, share: float) -> int:
        """The length in us that this share of the iterations did not exceed; 0 without any."""
        total = sum(self.counts.values())
        reached = 0
        for length in sorted(self.counts):
            reached += self.counts[length]
            if reached >= share * total:
                return length if length < LAST_BUCKET_US else math.ceil(self.longest_us)
        return 0

    @property
    def usual_us(self) -> int:
        """The length in us that 99.999 % of the iterations did not exceed."""
        return self.quantile_us(0.99999)

    def over(self, limit_us: float) -> int:
        """How many iterations took longer than a limit."""
        return sum(count for length, count in self.counts.items() if length > limit_us)


@dataclass(frozen=True)
class Dropped:
    """A CPU whose measurement ended early, and why: one sentence."""

    cpu: int
    reason: str


@dataclass(frozen=True)
class Result:
    """One measurement of a host."""

    host: str  # its name
    kernel: str  # uname -r
    began: str  # ISO 8601, UTC
    seconds: float  # as requested
    limit_us: float | None
    histograms: Mapping[int, Histogram]  # by measured CPU
    recording: Recording  # of the measured and the watched CPUs
    isolated: frozenset[int]
    housekeeping: frozenset[int]
    watched: frozenset[int] = frozenset()  # owned CPUs on which no loop ran
    dropped: tuple[Dropped, ...] = ()
    # By watched CPU, or one that was left out: its owner, as `namespace/pod/container`.
    owners: Mapping[int, str] = field(default_factory=dict)
    # The kernel's command line, and what else advice depends on.
    arguments: str = ""

    @property
    def exceeded(self) -> frozenset[int]:
        """The CPUs with an iteration over the limit."""
        if self.limit_us is None:
            return frozenset()
        return frozenset(
            cpu for cpu, one in self.histograms.items() if one.longest_us > self.limit_us
        )
