"""A measured figure: what was measured, its median and its worst value, and under which conditions.

Nothing here reads or writes a file.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Growth:
    """The dimension with which a figure grows, such as CPUs, and its size in this measurement."""

    dimension: str
    size: int


@dataclass(frozen=True)
class Figure:
    """One row of the table of measurements."""

    command: str  # that measured it, such as `bench/service latency`
    name: str  # what was measured
    unit: str  # such as ms; empty for a number of things
    median: float
    worst: float | None = None  # None: only one value was measured
    runs: int = 1
    condition: str = ""  # such as `512 CPUs on 8 nodes`
    limit: str = ""  # what is allowed, such as `at most 20 (median)`
    growth: Growth | None = field(default=None)


def of_values(
    command: str,
    name: str,
    unit: str,
    values: Sequence[float],
    *,
    condition: str = "",
    limit: str = "",
    growth: Growth | None = None,
) -> Figure:
    """The figure of several runs; a higher value is a worse one. A single value is not the worst.

    Raises ValueError if there is no value.
    """
    if not values:
        raise ValueError(f"{command}: {name}: no value was measured")
    return Figure(
        command,
        name,
        unit,
        statistics.median(values),
        max(values) if len(values) > 1 else None,
        len(values),
        condition,
        limit,
        growth,
    )


def of_seconds(
    command: str,
    name: str,
    seconds: Sequence[float],
    *,
    condition: str = "",
    limit: str = "",
    growth: Growth | None = None,
) -> Figure:
    """The figure of several times in seconds, in ms."""
    values = [1000 * one for one in seconds]
    return of_values(command, name, "ms", values, condition=condition, limit=limit, growth=growth)
