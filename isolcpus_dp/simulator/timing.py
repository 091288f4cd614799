"""When a kubelet admits its static pods after a start: times measured on a real one, to draw from.

Measured on kubelet 1.36.2 with two cores. The kubelet admits static pods and pods of its checkpoint
when its sync loop next wakes after the container runtime is up. That is a phase and not a constant,
and it does not wait for device plugins. Drawing from these times is for benchmarks and for tests of
admission; anything else uses LATE_ENOUGH, so that it does not depend on chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    import random

# The share of runs with one of the early times of `Measured.single`. An estimate: these are single
# runs of about a hundred.
_SINGLE_SHARE = 0.02


@dataclass(frozen=True)
class Measured:
    """A measured time in milliseconds: the range and the median of the runs.

    `single` has times of single runs that were shorter than this range.
    """

    shortest: float
    median: float
    longest: float
    single: tuple[float, ...] = ()

    def __str__(self) -> str:
        runs = f"{self.shortest:.0f} to {self.longest:.0f} ms"
        single = " and ".join(f"{time:.0f}" for time in self.single)
        return runs + (f", in single runs {single} ms" if single else "")

    def draw(self, source: random.Random) -> float:
        """A time in seconds: evenly distributed below the median, and above it."""
        if self.single and source.random() < _SINGLE_SHARE:
            return source.choice(self.single) / 1000
        share = source.random() * 2
        if share < 1:
            return (self.shortest + share * (self.median - self.shortest)) / 1000
        return (self.median + (share - 1) * (self.longest - self.median)) / 1000


# From the kubelet's socket to the admission of static pods.
ADMISSION_IDLE = Measured(55, 69, 70)
# The same with four busy loops on the two cores.
ADMISSION_BUSY = Measured(22, 48, 68, single=(6, 2))
ADMISSION = {"idle": ADMISSION_IDLE, "busy": ADMISSION_BUSY}  # by load

# From READY=1 of a kubelet with Type=notify to its socket. Only the range was measured.
READY_LEAD = Measured(30, 55, 80)


@dataclass(frozen=True)
class After:
    """Static pods are admitted at this time after the socket, whether or not plugins are ready."""

    seconds: float


@dataclass(frozen=True)
class WhenReported:
    """Static pods are admitted as soon as the resources that they need are registered and reported.

    If these are missing after `at_latest` seconds, the pods are admitted without them, as by a real
    kubelet.
    """

    at_latest: float = 30.0


Admission = Union[After, WhenReported]
LATE_ENOUGH = WhenReported()
