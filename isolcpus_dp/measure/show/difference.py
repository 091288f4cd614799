"""What differs between two measurements, by CPU. Pure; `compare` and `document` show it.

A figure is equal if it changed by no more than 1 (a microsecond, or an iteration over the limit) or
by no more than 10 %.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.measure.show.earlier import Document, Measured


SMALL = 1.0
SMALL_SHARE = 0.1


class Verdict(enum.Enum):
    """In the order in which CPUs are shown."""

    WORSE = "worse"
    BETTER = "better"
    EQUAL = "equal"
    NEW = "new"
    GONE = "gone"


_ORDER = list(Verdict)


@dataclass(frozen=True)
class Difference:
    """One CPU in both measurements; None where it was not measured."""

    cpu: int
    verdict: Verdict
    before: Measured | None
    now: Measured | None


def differences(before: Document, now: Document) -> list[Difference]:
    """One for each CPU; the worst changes first."""
    if before.limit_us != now.limit_us:
        before, now = _without_limit(before), _without_limit(now)
    found = [
        _difference(cpu, before.cpus.get(cpu), now.cpus.get(cpu))
        for cpu in before.cpus.keys() | now.cpus.keys()
    ]
    return sorted(found, key=_rank)


def warnings(before: Document, now: Document) -> tuple[str, ...]:
    """Why figures of the two cannot be compared: one sentence each."""
    found = []
    if before.host != now.host:
        found.append(f"the hosts differ: {before.host} before, {now.host} now")
    if before.kernel != now.kernel:
        found.append(f"the kernels differ: {before.kernel} before, {now.kernel} now")
    then_s, now_s = before.measured_seconds, now.measured_seconds
    if abs(now_s - then_s) > SMALL_SHARE * max(then_s, now_s):
        found.append(
            f"the durations differ: {then_s:g} s before, {now_s:g} s now; the longer one sees more"
            " of what is rare"
        )
    if before.limit_us != now.limit_us:
        found.append(
            f"the limits differ: {_limit(before)} before, {_limit(now)} now; iterations over the"
            " limit are not compared"
        )
    return tuple(found)


def is_equal(before: float, now: float) -> bool:
    return abs(now - before) <= max(SMALL, SMALL_SHARE * before)


def _difference(cpu: int, before: Measured | None, now: Measured | None) -> Difference:
    if before is None:
        return Difference(cpu, Verdict.NEW, None, now)
    if now is None:
        return Difference(cpu, Verdict.GONE, before, None)
    changed = [pair for pair in _figures(before, now) if not is_equal(*pair)]
    if any(this > then for then, this in changed):
        verdict = Verdict.WORSE
    else:
        verdict = Verdict.BETTER if changed else Verdict.EQUAL
    return Difference(cpu, verdict, before, now)


def _figures(before: Measured, now: Measured) -> list[tuple[float, float]]:
    figures = [(before.longest_us, now.longest_us), (before.p99_999_us, now.p99_999_us)]
    if before.over_limit is None or now.over_limit is None:
        return figures
    return [*figures, (float(before.over_limit), float(now.over_limit))]


def _rank(difference: Difference) -> tuple[int, tuple[float, ...], int]:
    changes: tuple[float, ...] = ()
    if difference.before and difference.now:
        pairs = _figures(difference.before, difference.now)
        changes = tuple(-abs(this - then) for then, this in pairs)
    return _ORDER.index(difference.verdict), changes, difference.cpu


def _without_limit(document: Document) -> Document:
    cpus = {cpu: replace(one, over_limit=None) for cpu, one in document.cpus.items()}
    return replace(document, limit_us=None, cpus=cpus)


def _limit(document: Document) -> str:
    return "none" if document.limit_us is None else f"{document.limit_us:g} us"
