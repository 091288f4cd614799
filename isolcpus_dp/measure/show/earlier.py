"""An earlier measurement, read from the output of --json: what a comparison needs of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from isolcpus_dp.measure.cause.cause import Cause, Kind
from isolcpus_dp.report.check.files import printable

VERSION = 1
_LONGEST_QUOTE = 40
# A larger number is no measurement, and may be too large for a float.
_MOST = 1e18
_HOW = "give a file that isolcpus-dp measure --json has written"


class DocumentError(Exception):
    """The file of an earlier measurement cannot be used; one sentence."""


@dataclass(frozen=True)
class Measured:
    """The figures of one CPU."""

    seconds: float  # less than requested if the measurement was ended early
    longest_us: float
    p99_999_us: float
    over_limit: int | None  # None if there was no limit
    cause: Cause


@dataclass(frozen=True)
class Document:
    """A measurement, as far as another one is compared with it."""

    host: str
    kernel: str
    began: str
    seconds: float
    limit_us: float | None
    cpus: Mapping[int, Measured]

    @property
    def measured_seconds(self) -> float:
        """The longest time that a CPU was measured."""
        return max((one.seconds for one in self.cpus.values()), default=self.seconds)


@dataclass(frozen=True)
class _Place:
    """A value and where it is in a file, as `cpus[2].longest_us`."""

    file: Path
    path: str
    value: object

    def member(self, name: str) -> _Place:
        members = self.value if isinstance(self.value, dict) else self.refuse("an object")
        path = f"{self.path}.{name}" if self.path else name
        if name not in members:
            raise DocumentError(f"{self.file}: {path} is missing: {_HOW}")
        return _Place(self.file, path, members[name])

    def items(self) -> list[_Place]:
        values = self.value if isinstance(self.value, list) else self.refuse("an array")
        return [
            _Place(self.file, f"{self.path}[{index}]", value) for index, value in enumerate(values)
        ]

    def text(self) -> str:
        """A text that the terminal may show."""
        return printable(self.value) if isinstance(self.value, str) else self.refuse("a string")

    def number(self) -> float:
        # JSON's true is an int in Python.
        if isinstance(self.value, bool) or not isinstance(self.value, (int, float)):
            self.refuse("a number, 0 or more")
        if not 0 <= self.value <= _MOST:
            self.refuse("a number, 0 or more")
        return float(self.value)

    def count(self) -> int:
        number = self.number() if isinstance(self.value, int) else self.refuse("an integer")
        return int(number)

    def refuse(self, allowed: str) -> NoReturn:
        quoted = json.dumps(self.value)
        if len(quoted) > _LONGEST_QUOTE:
            quoted = f"{quoted[:_LONGEST_QUOTE]}..."
        where = self.path or "the document"
        raise DocumentError(f"{self.file}: {where} is {quoted}: it must be {allowed}")


def read(path: Path) -> Document:
    """The measurement in a file. Raises DocumentError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"cannot read {path}: {error.strerror}") from error
    return parse(content, path)


def parse(content: bytes, path: Path) -> Document:
    """The measurement in the content of a file. Raises DocumentError."""
    root = _Place(path, "", _json(content, path))
    version = root.member("version")
    if version.value != VERSION or isinstance(version.value, bool):
        version.refuse(f"{VERSION}, the only version that this isolcpus-dp reads")
    cpus: dict[int, Measured] = {}
    for place in root.member("cpus").items():
        number = place.member("cpu")
        cpu = number.count()
        if cpu in cpus:
            number.refuse("a CPU that is not listed before")
        cpus[cpu] = _measured(place)
    return Document(
        host=root.member("host").text(),
        kernel=root.member("kernel").text(),
        began=root.member("began").text(),
        seconds=root.member("seconds").number(),
        limit_us=_limit(root.member("limit_us")),
        cpus=cpus,
    )


def _json(content: bytes, path: Path) -> object:
    try:
        return json.loads(content, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DocumentError(f"{path} is not JSON ({place}: {error.msg}): {_HOW}") from error
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{path} is not JSON ({error}): {_HOW}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _measured(place: _Place) -> Measured:
    over = place.member("over_limit")
    cause = place.member("cause")
    return Measured(
        seconds=place.member("seconds").number(),
        longest_us=place.member("longest_us").number(),
        p99_999_us=place.member("p99_999_us").number(),
        over_limit=None if over.value is None else over.count(),
        cause=Cause(
            _kind(cause.member("kind")),
            cause.member("words").text(),
            cause.member("advice").text(),
        ),
    )


def _kind(place: _Place) -> Kind:
    try:
        return Kind(place.value)
    except ValueError:
        place.refuse(f"one of {', '.join(kind.value for kind in Kind)}")


def _limit(place: _Place) -> float | None:
    return None if place.value is None else place.number()
