"""What got better or worse since an earlier measurement, as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.measure.cause.cause import Kind
from isolcpus_dp.measure.show import document
from isolcpus_dp.measure.show.difference import Verdict, differences, is_equal, warnings
from isolcpus_dp.measure.show.paragraph import microseconds, width_of_stdout, wrapped
from isolcpus_dp.report.check.files import printable

if TYPE_CHECKING:
    from isolcpus_dp.measure.result import Result
    from isolcpus_dp.measure.show.difference import Difference
    from isolcpus_dp.measure.show.earlier import Document, Measured

_INDENT = "  "


def as_text(before: Document, result: Result, width: int | None = None) -> str:
    """A paragraph for each CPU that changed, the worst first, and the lists of the others."""
    width = width or width_of_stdout()
    now = document.of(result)
    found = differences(before, now)
    lines = wrapped(f"compared with {before.host}, {before.began}:", width)
    lines += [
        line
        for sentence in warnings(before, now)
        for line in wrapped(printable(sentence), width, "warning: ")
    ]
    for one in found:
        lines += _paragraph(one, now.limit_us, width)
    for verdict, heading in _LISTS.items():
        cpus = [one.cpu for one in found if one.verdict is verdict]
        if cpus:
            lines += wrapped(f"{heading}: CPU {render(cpus)}", width)
    return "\n".join(lines)


_LISTS = {
    Verdict.EQUAL: "equal (within 1 us or 10 %)",
    Verdict.NEW: "measured only now",
    Verdict.GONE: "measured only before",
}


def _paragraph(one: Difference, limit_us: float | None, width: int) -> list[str]:
    """The figures of a CPU that changed; nothing for one with equal figures and cause."""
    if one.before is None or one.now is None:
        return []
    same_cause = one.before.cause.kind is one.now.cause.kind
    if one.verdict is Verdict.EQUAL and same_cause:
        return []
    figures = ", ".join(_figures(one.before, one.now, limit_us))
    lines = wrapped(f"CPU {one.cpu} {one.verdict.value}: {figures}", width, "", _INDENT)
    if same_cause and one.now.cause.kind is Kind.NONE:
        return lines
    lines += wrapped(one.now.cause.words, width, f"{_INDENT}cause:  ", " " * 10)
    if not same_cause:
        lines += wrapped(one.before.cause.words, width, f"{_INDENT}before: ", " " * 10)
    return lines


def _figures(before: Measured, now: Measured, limit_us: float | None) -> Iterable[str]:
    yield f"longest {_change(before.longest_us, now.longest_us)} us"
    yield f"99.999 % {_change(before.p99_999_us, now.p99_999_us)} us"
    if limit_us is not None and before.over_limit is not None and now.over_limit is not None:
        yield f"over {limit_us:g} us {_change(before.over_limit, now.over_limit)}"


def _change(before: float, now: float) -> str:
    """`12 -> 300`, or `12` if it is about the same."""
    then, this = microseconds(before), microseconds(now)
    return this if is_equal(before, now) else f"{then} -> {this}"
