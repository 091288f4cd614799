"""A measurement as a table, the worst CPUs first, with rich; and below it what to do."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.measure.cause import find
from isolcpus_dp.measure.cause.cause import Kind
from isolcpus_dp.measure.show import document
from isolcpus_dp.measure.show.paragraph import (
    is_colourful,
    microseconds,
    width_of_stdout,
    wrapped,
)
from isolcpus_dp.report.check.files import printable

if TYPE_CHECKING:
    from isolcpus_dp.measure.cause.cause import Cause
    from isolcpus_dp.measure.result import Result
    from isolcpus_dp.measure.show.earlier import Document, Measured

# With more rows, quiet CPUs share one.
_MOST_ROWS = 32
# The causes need most of the width, so long CPU lists are folded.
_LIST_WIDTH = 12


@dataclass(frozen=True)
class _Row:
    """The highest figures of CPUs with the same cause."""

    cpus: tuple[int, ...]
    longest_us: float
    p99_999_us: float
    over_limit: int | None
    words: str
    quiet: bool


def for_stdout(result: Result) -> str:
    """The text for standard output: as wide as the terminal, and in colour unless NO_COLOR is set.

    A missing rich is a ModuleNotFoundError when this module is imported.
    """
    return as_text(result, width_of_stdout(), colour=is_colourful())


def as_text(result: Result, width: int, *, colour: bool = False) -> str:
    """The table, the advice, and what was not measured or not seen."""
    causes = find.find(result)
    measured = document.of(result)
    # A CPU that was dropped may have been recorded until then.
    shown = {cpu: causes[cpu] for cpu in causes if cpu in measured.cpus.keys() | result.watched}
    parts = [
        "\n".join(wrapped(printable(_heading(result)), width)),
        _drawn(_table(measured), width, colour=colour) if measured.cpus else "",
        "\n".join(_advice(shown, width)),
        "\n".join(_remarks(result, causes, width)),
    ]
    return "\n\n".join(part for part in parts if part)


def _heading(result: Result) -> str:
    count = len(result.histograms)
    cpus = "1 CPU" if count == 1 else f"{count} CPUs"
    limit = f", limit {result.limit_us:g} us" if result.limit_us is not None else ""
    return (
        f"{result.host}, kernel {result.kernel}, {result.began}: {cpus} measured for"
        f" {result.seconds:g} s{limit}"
    )


def _table(measured: Document) -> Table:
    limit = measured.limit_us
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("CPU", max_width=_LIST_WIDTH, overflow="fold")
    table.add_column("longest", justify="right", no_wrap=True)
    table.add_column("99.999 %", justify="right", no_wrap=True)
    if limit is not None:
        table.add_column(f"> {limit:g} us", justify="right", no_wrap=True)
    table.add_column("likely cause", overflow="fold")
    for row in _rows(measured.cpus):
        exceeded = limit is not None and row.longest_us > limit
        over = [] if limit is None else [str(row.over_limit)]
        table.add_row(
            render(row.cpus),
            Text(f"{microseconds(row.longest_us)} us", style="red" if exceeded else ""),
            f"{microseconds(row.p99_999_us)} us",
            *over,
            Text(row.words, style="dim" if row.quiet else ""),
        )
    return table


def _rows(measured: Mapping[int, Measured]) -> list[_Row]:
    """A row for each CPU, the worst first; if they are many, one for all quiet CPUs."""
    rows = [_row(cpu, one) for cpu, one in measured.items()]
    rows.sort(key=lambda row: (-row.longest_us, -row.p99_999_us, row.cpus))
    quiet = [row for row in rows if row.quiet]
    if len(rows) <= _MOST_ROWS or len(quiet) < 2:
        return rows
    return [*(row for row in rows if not row.quiet), _together(quiet)]


def _row(cpu: int, one: Measured) -> _Row:
    quiet = one.cause.kind is Kind.NONE and not one.over_limit
    return _Row(
        (cpu,), one.longest_us, one.p99_999_us, one.over_limit, printable(one.cause.words), quiet
    )


def _together(quiet: Sequence[_Row]) -> _Row:
    return _Row(
        cpus=tuple(sorted(cpu for row in quiet for cpu in row.cpus)),
        longest_us=max(row.longest_us for row in quiet),
        p99_999_us=max(row.p99_999_us for row in quiet),
        over_limit=quiet[0].over_limit,
        words=f"no frequent disturbance on these {len(quiet)} CPUs",
        quiet=True,
    )


def _drawn(table: Table, width: int, *, colour: bool) -> str:
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        color_system="standard" if colour else None,
        force_terminal=colour,
        no_color=not colour,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _advice(causes: Mapping[int, Cause], width: int) -> Iterable[str]:
    """Each advice once, with the CPUs that it is for."""
    cpus_by_advice: dict[str, list[int]] = {}
    for cpu, cause in causes.items():
        if cause.advice:
            cpus_by_advice.setdefault(cause.advice, []).append(cpu)
    for advice, cpus in cpus_by_advice.items():
        yield from wrapped(f"CPU {render(cpus)}: {printable(advice)}", width, "-> ")


def _remarks(result: Result, causes: Mapping[int, Cause], width: int) -> Iterable[str]:
    """What was not measured, and what was watched only or not seen: each with the reason."""
    sentences = [f"dropped CPU {one.cpu}: {one.reason}" for one in result.dropped]
    for cpu in sorted(result.watched):
        owner = f" ({result.owners[cpu]})" if cpu in result.owners else ""
        words = causes[cpu].words if cpu in causes else "not recorded"
        sentences.append(f"watched CPU {cpu}{owner}: {words}")
    sentences += [f"not seen: {sentence}" for sentence in result.recording.unseen]
    for sentence in sentences:
        yield from wrapped(printable(sentence), width, "", "  ")
