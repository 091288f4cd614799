"""What a check comes to: a verdict, the evidence for it, and what to do."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

# So many culprits are named; the rest is only counted.
_NAMED = 4


class Verdict(enum.Enum):
    """From good to bad, as they are told."""

    OK = "ok"
    UNKNOWN = "unknown"  # what it takes to tell could not be seen
    WARNING = "warning"  # owners may be disturbed
    PROBLEM = "problem"  # owners are disturbed, or the host is not set up as it was meant to be


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    verdict: Verdict
    evidence: str
    advice: str = ""  # what to do; nothing if all is well, or if the evidence says it


def ok(evidence: str) -> Finding:
    return Finding(Verdict.OK, evidence)


def unknown(evidence: str, advice: str = "") -> Finding:
    return Finding(Verdict.UNKNOWN, evidence, advice)


def warning(evidence: str, advice: str) -> Finding:
    return Finding(Verdict.WARNING, evidence, advice)


def problem(evidence: str, advice: str) -> Finding:
    return Finding(Verdict.PROBLEM, evidence, advice)


def some(culprits: Sequence[object]) -> str:
    """The first few of many in words, and how many more there are."""
    left = len(culprits) - _NAMED
    return "; ".join(map(str, culprits[:_NAMED])) + (f"; and {left} more" if left > 0 else "")
