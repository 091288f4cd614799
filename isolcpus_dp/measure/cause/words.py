"""Says in words what disturbed a CPU. What others named is printable in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from isolcpus_dp.measure.cause import names
from isolcpus_dp.measure.cause.role import RULES, Role
from isolcpus_dp.report.check.files import printable

if TYPE_CHECKING:
    from isolcpus_dp.measure.cause.suspect import Suspect

# How many are named; the rest are only counted.
_NAMED = 2
_RARE_NAMED = 3

QUIET = "no disturbance recorded"
NOT_RECORDED = "what happened on this CPU was not recorded"


def of(suspect: Suspect) -> str:
    """`thread backup/812 ran 120 times (2.0/s), at most 64 us`"""
    verb = RULES[suspect.role].verb
    longest = f", at most {_number(suspect.longest_us)} us" if suspect.longest_us else ""
    return f"{_subject(suspect)} {verb} {_times(suspect)} ({rate(suspect.rate)}){longest}"


def of_rare(suspects: Sequence[Suspect]) -> str:
    """What there was although nothing disturbed often: `no frequent disturbance; ...`"""
    if not suspects:
        return QUIET
    listed = ", ".join(f"{_subject(one)} {rate(one.rate)}" for one in suspects[:_RARE_NAMED])
    more = len(suspects) - _RARE_NAMED
    return f"no frequent disturbance; {listed}" + (f", and {more} more" if more > 0 else "")


def of_owner(suspects: Sequence[Suspect]) -> str:
    """The threads on an owned CPU: they and what they cause are no disturbance."""
    listed = ", ".join(f"{_subject(one)} {rate(one.rate)}" for one in suspects)
    return f"nothing but threads that may be the owner's: {listed}"


def of_frequency(lowest_mhz: int, highest_mhz: int) -> str:
    return f"the frequency changed between {lowest_mhz} and {highest_mhz} MHz"


def of_hardware(*, virtual: bool) -> str:
    who = "the hypervisor or its host" if virtual else "the firmware or the core's other threads"
    return f"nothing that the kernel records: {who}"


def rate(per_second: float) -> str:
    """`120/s`, `2.0/s` or `0.02/s`"""
    if per_second >= 10:
        return f"{_number(per_second)}/s"
    digits = 1 if per_second >= 0.1 else 2
    return f"{max(per_second, 0.01):.{digits}f}/s"


def _subject(suspect: Suspect) -> str:
    names_of_it = _names(suspect)
    subject = RULES[suspect.role].subject
    if len(names_of_it) > 1:
        subject = re.sub(r"\b(thread|interrupt|softirq)\b", r"\1s", subject)
    more = len(names_of_it) - _NAMED
    listed = ", ".join(names_of_it[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    return subject.format(names=listed)


def _names(suspect: Suspect) -> list[str]:
    """The most frequent first. Threads with the same name are one: a loop in a shell has many."""
    by_name: dict[str, list[str]] = {}
    totals: dict[str, int] = {}
    for name, count in suspect.counts.items():
        group = names.without_number(name) if suspect.role is Role.PROCESS else name
        by_name.setdefault(group, []).append(name)
        totals[group] = totals.get(group, 0) + count
    return [
        printable(_group(group, by_name[group]))
        for group in sorted(totals, key=lambda group: (-totals[group], group))
    ]


def _group(name: str, threads: Sequence[str]) -> str:
    return threads[0] if len(threads) == 1 else f"{name} ({len(threads)} of this name)"


def _times(suspect: Suspect) -> str:
    return "once" if suspect.count == 1 else f"{suspect.count} times"


def _number(value: float | None) -> str:
    return f"{value or 0:.0f}"
