"""Writes and reads the figures and the conditions of a run, as JSON lines.

The programs of `bench/` append to the file that the environment variable FIGURES names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Union

from bench.figures.conditions import Conditions
from bench.figures.figure import Figure, Growth

VARIABLE = "FIGURES"

Record = Union[Figure, Conditions]


@dataclass(frozen=True)
class Run:
    """The figures of a run, such as that of `make bench`, whose kind is `bench`."""

    kind: str
    conditions: Conditions
    figures: tuple[Figure, ...]


def begin(file: Path, conditions: Conditions) -> None:
    """Begins the file of a run; one of an earlier run is removed."""
    file.unlink(missing_ok=True)
    append(file, [conditions])


def hand_over(*figures: Figure) -> None:
    """Appends figures to the file of this run of `make bench`; does nothing in any other run."""
    path = os.environ.get(VARIABLE)
    if path:
        append(Path(path), figures)


def append(path: Path, records: Iterable[Record]) -> None:
    """Appends records to a file; creates it if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for record in records:
            file.write(line(record))


def line(record: Record) -> str:
    """The line of a record."""
    kind = "figure" if isinstance(record, Figure) else "conditions"
    return json.dumps({kind: asdict(record)}) + "\n"


def read(file: Path) -> Run:
    """The run whose file this is. Raises OSError, and ValueError with the file and the line."""
    try:
        return parse(file.stem, file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def parse(kind: str, text: str) -> Run:
    """The conditions and the figures of a run. Raises ValueError with the number of the line."""
    conditions: Conditions | None = None
    figures = []
    for number, words in enumerate(text.splitlines(), start=1):
        try:
            [(name, fields)] = json.loads(words).items()
            if name == "conditions":
                conditions = Conditions(**fields)
            else:
                figures.append(_figure(fields))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is not a record of a measurement: {error}") from None
    if conditions is None:
        raise ValueError("there is no line with the conditions of the run")
    return Run(kind, conditions, tuple(figures))


def _figure(fields: dict[str, Any]) -> Figure:
    growth = fields.pop("growth")
    return Figure(**fields, growth=Growth(**growth) if growth else None)
