"""Which of several suspects most likely disturbed a CPU.

1. A suspect with more events than normal is frequent.
2. One whose events follow from other, frequent ones is left out: the timer interrupts that a second
   thread causes.
3. Of the rest, the one that took most time is the cause.
4. If an iteration exceeded the limit, only those count that can have taken so long, also once. That
   is known with osnoise; otherwise single events are suspected in the order of RULES.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from isolcpus_dp.measure.cause.role import RULES, SHORT, Role

if TYPE_CHECKING:
    from isolcpus_dp.measure.cause.suspect import Suspect

# Fewer events are no evidence for a rate.
_FEWEST = 3
# A single short event does not take longer.
_LONG_US = 50.0
# Without a limit, an iteration stands out that took so many times as long as all but 0.001 % did.
_STANDS_OUT = 10


def cause(
    suspects: Sequence[Suspect],
    exceeded_us: float | None = None,
    innocent: frozenset[Role] = frozenset(),
) -> Suspect | None:
    """The most likely one; None if there is no frequent one, and no single one that fits.

    `exceeded_us` is the limit if an iteration exceeded it. Roles that are innocent are no cause,
    and neither are events that follow from theirs.
    """
    frequent = [one for one in suspects if _is_frequent(one)]
    independent = [
        one for one in suspects if one.role not in innocent and not _follows(one, frequent)
    ]
    remaining = [one for one in independent if one in frequent]
    if exceeded_us is not None:
        long = [one for one in independent if (one.longest_us or 0) >= exceeded_us]
        remaining = long or remaining
    if remaining:
        return max(remaining, key=lambda one: one.weight)
    if exceeded_us is None:
        return None
    # The order is that of RULES.
    return next((one for one in suspects if one.role not in SHORT and _may_fit(one)), None)


def _is_frequent(suspect: Suspect) -> bool:
    normal = RULES[suspect.role].normal_rate
    if not normal:
        return suspect.count > 0
    return suspect.rate >= normal and suspect.count >= _FEWEST


def stands_out(longest_us: float, usual_us: float) -> bool:
    """Whether the longest iteration needs an explanation although there is no limit."""
    return longest_us > max(_LONG_US, _STANDS_OUT * usual_us)


def single_short_one(suspects: Sequence[Suspect], longest_us: float) -> Suspect | None:
    """A short event that explains an iteration of this length."""
    if longest_us > _LONG_US:
        return None
    return next((one for one in suspects if one.role in SHORT and _may_fit(one)), None)


def _may_fit(suspect: Suspect) -> bool:
    """Whether it may have taken long: with osnoise it is known that it did not."""
    return suspect.longest_us is None


def _follows(suspect: Suspect, frequent: Sequence[Suspect]) -> bool:
    """Whether its events follow from those of others."""
    brought = sum(
        RULES[other.role].brings.get(suspect.role, 0) * other.count
        for other in frequent
        if other.role is not suspect.role
    )
    return suspect.count <= brought
