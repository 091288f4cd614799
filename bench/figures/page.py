"""Renders the figures of a run as the page of measurements, in Markdown. A pure function."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.figures.conditions import Conditions
    from bench.figures.figure import Figure
    from bench.figures.records import Run

PICTURE = "measurements.svg"

_TOP = """\
# Measurements

What isolcpus-dp costs and survives, and how that grows with the host. The commands below wrote this
page and the picture; do not edit them. A value is the median of all runs; the worst one is in
brackets. If there are no brackets, there is only one value: a count, a mean, a rate, or a size that
was measured once. A limit is what the project aims at; limits in ms depend on the speed of the
host. A row whose command begins with `bench/` can be measured again without a change of this page:
run `make figure` with the words after `bench/`, such as `make figure RUN="service latency"`.
"""

# The kinds of runs in the order of the page: the command, and what is measured.
_KINDS = {
    "bench": (
        "make bench",
        "The machines, the kubelet and the container runtime are simulated. The daemons and the"
        "\ncommands are real processes.",
    ),
    "upgrade": (
        "make upgrade",
        "Version 0.2.0 is upgraded in virtual machines, whose emulated CPUs are slow. The value"
        "\nof a restart of the service on the same machine is there for comparison.",
    ),
    "storm": (
        "make storm",
        "The kubelet and the container runtime are restarted at random moments of the daemons'"
        "\nlives. Both are simulated, but they are processes that are really ended.",
    ),
    "soak": (
        "make soak",
        "Pods come and go on a real container runtime in a virtual machine, while CPUs go offline,"
        "\nthe kubelet and the runtime restart, and configurations are reloaded.",
    ),
}

_UNPRIVILEGED = "The run was not started as root, so the daemons had the default priority."


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs in the order of the page. Raises ValueError if the kind of one is unknown."""
    found = list(runs)
    for run in found:
        if run.kind not in _KINDS:
            kinds = ", ".join(_KINDS)
            raise ValueError(f"'{run.kind}' is not a kind of measurement; they are {kinds}")
    return sorted(found, key=lambda run: list(_KINDS).index(run.kind))


def render(runs: Iterable[Run]) -> str:
    """The whole page. The same runs give the same text."""
    return "\n".join([_TOP, *map(section, runs)])


def section(run: Run) -> str:
    """The part of the page with one run."""
    command, about = _KINDS[run.kind]
    parts = [f"## {command}\n\n{about}\n", _conditions(run.conditions), _table(run.figures)]
    dimensions = dict.fromkeys(one.growth.dimension for one in run.figures if one.growth)
    if dimensions:
        parts.append(
            "### How figures grow\n\n"
            f"![How figures grow with {_words(dimensions)}]({PICTURE})\n\n"
            "Both axes are logarithmic. The values, median and worst:\n"
        )
    parts += [_growth(dimension, run.figures) for dimension in dimensions]
    return "\n".join(parts)


def number(value: float) -> str:
    """A number with three significant digits; whole numbers with all of theirs."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(digits, 0)}f}"


def _conditions(conditions: Conditions) -> str:
    machine = f"{conditions.processor}, {conditions.cpus} CPUs, {number(conditions.memory_gib)} GiB"
    system = f"{conditions.system}, Linux {conditions.kernel}"
    python = f"{conditions.python}, grpcio {conditions.grpcio}"
    guest = [("virtual machine", conditions.guest)]
    rows = (
        ("date", conditions.day),
        *([("isolcpus-dp", conditions.version)] if conditions.version else []),
        ("machine", machine),
        *(guest if conditions.guest else [("system", system), ("Python", python)]),
        ("load average before the run", f"{conditions.load:.2f}"),
    )
    text = "| conditions | |\n|---|---|\n" + "".join(_row(row) for row in rows)
    return text if conditions.is_root else f"{text}\n{_UNPRIVILEGED}\n"


def _table(figures: Iterable[Figure]) -> str:
    head = "| figure | conditions | value | runs | limit | command |\n|---|---|---|---|---|---|\n"
    rows = (
        (
            one.name,
            one.condition,
            _value(one, one.unit),
            str(one.runs),
            one.limit,
            f"`{one.command}`",
        )
        for one in figures
        if not one.growth
    )
    return head + "".join(map(_row, rows))


def _growth(dimension: str, figures: Iterable[Figure]) -> str:
    """The figures that grow with a dimension: one row for each, one column for each size."""
    rows: dict[tuple[str, str, str], dict[int, Figure]] = {}
    for one in figures:
        if one.growth and one.growth.dimension == dimension:
            key = (one.name, one.unit, one.condition)
            rows.setdefault(key, {})[one.growth.size] = one
    sizes = sorted({size for row in rows.values() for size in row})
    title = f"by number of {dimension}"
    head = (title, "conditions", *map(str, sizes), "runs", "command")
    lines = [_row(head), "|---" * len(head) + "|\n"]
    for (name, unit, condition), by_size in rows.items():
        first = next(iter(by_size.values()))
        values = (_value(by_size[size]) if size in by_size else "" for size in sizes)
        runs = "/".join(dict.fromkeys(str(by_size[size].runs) for size in sorted(by_size)))
        row = f"{name}, {unit}" if unit else name
        lines.append(_row((row, condition, *values, runs, f"`{first.command}`")))
    return "".join(lines)


def _value(figure: Figure, unit: str = "") -> str:
    worst = "" if figure.worst is None else f" ({number(figure.worst)})"
    return f"{number(figure.median)}{worst} {unit}".strip()


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _words(names: Iterable[str]) -> str:
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last


def table_of(page: str) -> Iterator[str]:
    """The lines of a page for a terminal: tables and headings, with aligned columns."""
    block: list[list[str]] = []
    for line in (*page.splitlines(), ""):
        if line.startswith("|"):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            if set("".join(cells)) != {"-"}:
                block.append(cells)
            continue
        if block:
            widths = [max(map(len, column)) for column in zip(*block)]
            yield from (
                "  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip()
                for cells in block
            )
            block = []
        if line.startswith("#"):
            yield f"\n{line.lstrip('# ')}"
