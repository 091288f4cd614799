"""The words in the picture of a measurement: around the cells, in a cell, and in its tooltip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.report.map import text

if TYPE_CHECKING:
    from isolcpus_dp.measure.cause.cause import Cause
    from isolcpus_dp.measure.result import Result

HOW_TO_READ = (
    "Each cell is a CPU, in the order of their numbers. Horizontal: how long an iteration of the"
    " busy loop took, in us. Vertical: how many took so long. Both axes are logarithmic, and the"
    " same in all cells. Iterations that are longer than those of the last bar are counted there."
)


def heading(result: Result) -> str:
    """The host and its kernel."""
    return text.clean(f"isolcpus-dp measure: {result.host}, Linux {result.kernel}")


def summary(result: Result) -> str:
    """What was measured, when, and on which CPUs it exceeded the limit."""
    measured = frozenset(result.histograms)
    what = f"CPU {cpulist.render(measured)} measured" if measured else "no CPU was measured"
    lasted = f"{what}, {number(result.seconds)} s from {result.began}"
    if result.limit_us is None:
        return text.clean(lasted)
    exceeded = cpulist.render(result.exceeded)
    where = f"exceeded on CPU {exceeded}" if exceeded else "not exceeded"
    return text.clean(f"{lasted}; limit {microseconds(result.limit_us)}: {where}")


def notes(result: Result, causes: Mapping[int, Cause]) -> Iterator[str]:
    """The CPUs without a cell: those that were watched, and those that were dropped."""
    for cpu in sorted(result.watched):
        owner = result.owners.get(cpu)
        owned = f", owned by {owner}" if owner else ""
        yield text.clean(f"watched, without a busy loop: CPU {cpu}{owned}{_cause(cpu, causes)}")
    for dropped in sorted(result.dropped, key=lambda one: one.cpu):
        yield text.clean(f"dropped: CPU {dropped.cpu}: {dropped.reason}")


def _cause(cpu: int, causes: Mapping[int, Cause]) -> str:
    return f": {causes[cpu].words}" if cpu in causes else ""


def longest(result: Result, cpu: int) -> Iterator[str]:
    """The longest iteration of a CPU, in forms that take less and less room."""
    length = microseconds(result.histograms[cpu].longest_us)
    if cpu in result.exceeded:
        yield f"longest {length}, {_over(result, cpu)} over the limit"
    yield f"longest {length}"
    yield length


def tooltip(result: Result, causes: Mapping[int, Cause], cpu: int) -> str:
    """All that is known of a CPU, one fact a line."""
    histogram = result.histograms[cpu]
    lines = [
        f"CPU {cpu}: {sum(histogram.counts.values())} iterations",
        f"longest: {microseconds(histogram.longest_us)}",
        f"99.999 %: at most {microseconds(histogram.usual_us)}",
    ]
    if result.limit_us is not None:
        lines.append(f"over the limit of {microseconds(result.limit_us)}: {_over(result, cpu)}")
    if cpu in causes:
        lines += [f"likely cause: {causes[cpu].words}", causes[cpu].advice]
    return "\n".join(text.clean(line) for line in lines if line)


def _over(result: Result, cpu: int) -> int:
    """How many iterations were over the limit. At least one, if the longest one was."""
    if result.limit_us is None:
        return 0
    return max(result.histograms[cpu].over(result.limit_us), int(cpu in result.exceeded))


def microseconds(length: float) -> str:
    """A length with its unit, as `1117 us` or `2.5 us`."""
    return f"{number(length)} us"


def number(value: float) -> str:
    """At most one decimal place, none if it is zero."""
    return f"{value:.1f}".removesuffix(".0")
