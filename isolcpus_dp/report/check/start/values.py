"""Values of the kubelet's settings, as the kubelet parses them.

A value is from a file (any type) or from a flag (a text; a flag that is given more than once has a
line for each time).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from isolcpus_dp.host import cpulist

# Go's strconv.ParseBool.
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
# The suffixes of a resource.Quantity; the exponent is written as e3 or E3.
_FACTORS = {
    "": Fraction(1),
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{letter: Fraction(1, 1000**power) for power, letter in enumerate("mun", 1)},
}
_QUANTITY = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(?:[eE]([+-]?[0-9]{1,2})|([A-Za-z]*))"
)
_RANGE = re.compile(r"\+?([0-9]{1,20})(?:-\+?([0-9]{1,20}))?")


class ValueRefused(ValueError):
    """The kubelet cannot parse a value; the message says what is wrong."""


def text(settings: Mapping[str, Any], key: str, default: str = "") -> str:
    """A text; the default if it is not set or empty."""
    value = settings.get(key)
    return default if value is None or value == "" else str(value)


def pairs(settings: Mapping[str, Any], key: str) -> dict[str, str]:
    """By name: the values of a mapping. What is not a pair of texts is left out."""
    value = settings.get(key)
    if isinstance(value, dict):
        # The kubelet reads null as an empty text.
        return {str(name): "" if part is None else str(part) for name, part in value.items()}
    words = [word.strip() for word in flag_words(key, value)]
    separator = "<" if key == "evictionHard" else "="
    found = (word.partition(separator) for word in words)
    return {name.strip(): part.strip() for name, equals, part in found if equals}


def flag_words(key: str, value: Any) -> list[str]:
    """The words of a flag that is a list of pairs; the kubelet refuses those without a pair."""
    lines = value.splitlines() if isinstance(value, str) else []
    # The kubelet does not split this flag at commas; it is given once for each option.
    if key != "cpuManagerPolicyOptions":
        lines = [word for line in lines for word in line.split(",")]
    return [line for line in lines if line]


def words(value: Any) -> list[str]:
    """The words of a list, from a file or a flag."""
    if isinstance(value, str):
        return [word for line in value.splitlines() for word in line.split(",") if word]
    return [str(word) for word in value] if isinstance(value, list) else []


def cpus(value: str) -> frozenset[int]:
    """The CPUs of a list, without white space. A CPU that cannot exist is MOST_CPUS.

    Raises ValueRefused.
    """
    ranges = list[tuple[int, int]]()
    for part in value.split(",") if value else []:
        match = _RANGE.fullmatch(part)
        if not match:
            raise ValueRefused(f"'{part}' is neither a CPU number nor a range such as 2-3")
        low, high = (min(int(end), cpulist.MOST_CPUS) for end in (match[1], match[2] or match[1]))
        if int(match[1]) > int(match[2] or match[1]):
            raise ValueRefused(f"'{part}' ends before it starts")
        ranges.append((low, high))
    # Each CPU is added once: adding those of many long ranges would take minutes.
    found, following = set[int](), 0
    for low, high in sorted(ranges):
        found.update(range(max(low, following), high + 1))
        following = max(following, high + 1)
    return frozenset(found)


def is_number(value: str) -> bool:
    """Whether a text is a number in decimal digits, which int() accepts."""
    return re.fullmatch("[0-9]{1,18}", value) is not None


def boolean(value: str) -> bool | None:
    """True or False; None if the kubelet does not accept the text."""
    return _BOOLEANS.get(value)


def quantity(value: str) -> Fraction | None:
    """A quantity such as 500m, 1Gi or 1e3; None if the kubelet does not accept the text."""
    match = _QUANTITY.fullmatch(value)
    if not match:
        return None
    if match[2]:
        return _number(match[1]) * Fraction(10) ** int(match[2])
    factor = _FACTORS.get(match[3] or "")
    return None if factor is None else _number(match[1]) * factor


def gate(settings: Mapping[str, Any], name: str, stage: str, *, default: bool) -> bool:
    """Whether a feature gate is enabled; `stage` is AllAlpha or AllBeta.

    The flag overrides the file gate by gate.
    """
    gates = {
        **pairs(settings, "featureGates"),
        **pairs(settings, "--feature-gates"),
    }
    for known in (name, stage):  # the gate itself before all of its stage
        value = boolean(gates.get(known, "").lower())
        if value is not None:
            return value
    return default


def _number(digits: str) -> Fraction:
    sign = -1 if digits.startswith("-") else 1
    whole, _, part = digits.lstrip("+-").partition(".")
    return sign * Fraction(int(f"{whole}{part}"), 10 ** len(part))
