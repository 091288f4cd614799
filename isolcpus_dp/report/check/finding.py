"""The result of a check: a verdict, the evidence for it, and advice."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

# The number of items that are listed; the rest are only counted.
_LISTED = 4


class Verdict(enum.Enum):
    """In order, from good to bad."""

    OK = "ok"
    UNKNOWN = "unknown"  # what the check needs could not be read
    WARNING = "warning"  # owners may be disturbed
    PROBLEM = "problem"  # owners are disturbed, or the host is not set up as configured


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    verdict: Verdict
    evidence: str
    advice: str = ""  # what to do; empty if there is nothing to do, or if the evidence says it


def ok(evidence: str) -> Finding:
    return Finding(Verdict.OK, evidence)


def unknown(evidence: str, advice: str = "") -> Finding:
    return Finding(Verdict.UNKNOWN, evidence, advice)


def warning(evidence: str, advice: str) -> Finding:
    return Finding(Verdict.WARNING, evidence, advice)


def problem(evidence: str, advice: str) -> Finding:
    return Finding(Verdict.PROBLEM, evidence, advice)


def some(items: Sequence[object]) -> str:
    """The first few items as text, and the number of the others."""
    left = len(items) - _LISTED
    return "; ".join(map(str, items[:_LISTED])) + (f"; and {left} more" if left > 0 else "")
