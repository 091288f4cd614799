"""Draws the restarts of a storm: when each kubelet or runtime starts, and when and how it ends.

The same seed draws the same restarts.
"""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass

# By moment in the life of a kubelet or runtime: how long after it the process ends, in seconds.
Moments = Mapping[str, tuple[float, float]]

# A call takes 1 to 4 ms, so that some processes end in the middle of it and some after it.
IN_A_CALL = (0.0, 0.003)
IDLE = (0.02, 0.5)

# What a process does, in the order of its life, until it is idle.
KUBELET: Moments = {
    "socket": (0.0, 0.008),
    "Register": IN_A_CALL,
    "ListAndWatch": IN_A_CALL,
    "Allocate": IN_A_CALL,
    "idle": IDLE,
}
RUNTIME: Moments = {
    "socket": (0.0, 0.008),
    "RegisterPlugin": IN_A_CALL,
    "Configure": IN_A_CALL,
    "Synchronize": IN_A_CALL,
    "StateChange": IN_A_CALL,
    "UpdateContainers": IN_A_CALL,
    "CreateContainer": IN_A_CALL,
    "idle": IDLE,
}

_SIGNALS = (signal.SIGTERM, signal.SIGKILL)
# A kubelet or runtime needs 5 to 10 ms more until its socket exists, and a daemon about 35 ms until
# its next worker waits.
_SOON = 0.03


@dataclass(frozen=True)
class Restart:
    """A process that starts, and the end of its life."""

    apart: float  # from the end of the process before it to its start, in seconds
    number: signal.Signals  # which ends it
    moment: str = ""  # its end is `after` this; empty: it stays until the next round
    after: float = 0.0


@dataclass(frozen=True)
class Round:
    """Some restarts, the last of which stays, and the busy loops beside them."""

    restarts: tuple[Restart, ...]
    busy_loops: int


def draw(
    source: random.Random,
    moments: Moments,
    rounds: int,
    restarts: int,
    longest_apart: float = 2.0,
    busy_loops: int = 4,
) -> list[Round]:
    """Draws this number of rounds with this number of restarts each; every other one is busy.

    The moments have equal chances. Half of the processes start within the time in which a daemon
    replaces its worker; the times of the others are drawn on a logarithmic scale.
    """

    def one(*, stays: bool) -> Restart:
        later = math.exp(source.uniform(math.log(_SOON), math.log(longest_apart)))
        apart = source.choice((source.uniform(0, _SOON), later))
        number, moment = source.choice(_SIGNALS), source.choice(list(moments))
        after = source.uniform(*moments[moment])
        return Restart(apart, number) if stays else Restart(apart, number, moment, after)

    return [
        Round(
            tuple(one(stays=position == restarts - 1) for position in range(restarts)),
            busy_loops * (number % 2),
        )
        for number in range(rounds)
    ]
