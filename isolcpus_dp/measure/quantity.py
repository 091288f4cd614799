"""Parses the quantities of the command line: durations, and lengths of an interruption."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_SECONDS = 7 * 86400.0
# The busy loop needs a moment to start, and its first iterations are longer than the others.
_SHORTEST_SECONDS = 0.1

_MICROSECONDS = {"us": 1.0, "ms": 1000.0}
# oslat's histogram does not tell longer iterations apart.
_LONGEST_US = 1000.0

_NUMBER = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)([a-z]*)")


class QuantityError(ValueError):
    """A text is not such a quantity; the message is one sentence."""


def seconds(text: str) -> float:
    """The seconds of a duration such as `500ms`, `60s`, `5m` or `1h`; a number alone is seconds.

    Raises QuantityError.
    """
    duration = _parsed(text, _SECONDS)
    if duration is None or not _SHORTEST_SECONDS <= duration <= _LONGEST_SECONDS:
        raise QuantityError(
            f"'{text}' is not a duration from 100ms to 168h with the unit ms, s, m or h"
        )
    return duration


def microseconds(text: str) -> float:
    """The microseconds of a length such as `20us` or `0.5ms`. Raises QuantityError."""
    length = _parsed(text, _MICROSECONDS)
    if length is None or not 1 <= length <= _LONGEST_US:
        raise QuantityError(f"'{text}' is not a length from 1us to 1ms with the unit us or ms")
    return length


def _parsed(text: str, units: Mapping[str, float]) -> float | None:
    match = _NUMBER.fullmatch(text.strip())
    if not match or match[2] not in units:
        return None
    return float(match[1]) * units[match[2]]
