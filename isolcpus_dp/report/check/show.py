"""Prints results: as text for an operator, as JSON for programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence

from isolcpus_dp.report.check.finding import Verdict
from isolcpus_dp.report.check.table import CHECKS, Result, worst

# The colours of the verdicts on a terminal (ECMA-48): green, cyan, yellow, red.
_COLOURS = {Verdict.OK: 32, Verdict.UNKNOWN: 36, Verdict.WARNING: 33, Verdict.PROBLEM: 31}
_IDS = max(len(check.id) for check in CHECKS)
_VERDICTS = max(len(verdict.value) for verdict in Verdict)
_INDENT = _IDS + _VERDICTS + 4

Paint = Callable[[Verdict], str]


def as_text(results: Sequence[Result], width: int, paint: Paint) -> str:
    """A paragraph per check with its advice, and the number of checks by verdict."""
    lines = [line for result in results for line in _paragraph(result, width, paint)]
    verdicts = [result.finding.verdict for result in results]
    counts = [f"{verdicts.count(one)} {one.value}" for one in Verdict if one in verdicts]
    return "\n".join([*lines, ", ".join(counts)])


def as_json(results: Sequence[Result]) -> str:
    """Machine-readable output, described in docs/check.schema.json."""
    return json.dumps(
        {
            "worst": worst(results).value,
            "checks": [
                {
                    "id": result.check.id,
                    "looks_at": result.check.looks_at,
                    "verdict": result.finding.verdict.value,
                    "evidence": result.finding.evidence,
                    "advice": result.finding.advice,
                }
                for result in results
            ],
        },
        indent=2,
    )


def plain(verdict: Verdict) -> str:
    """A verdict, padded to the width of its column."""
    return f"{verdict.value:{_VERDICTS}}"


def coloured(verdict: Verdict) -> str:
    """The same in colour, for a terminal."""
    return f"\033[{_COLOURS[verdict]}m{plain(verdict)}\033[0m"


def for_stdout(results: Sequence[Result]) -> str:
    """The text for standard output: as wide as the terminal, and in colour unless NO_COLOR is set.

    NO_COLOR is described at no-color.org.
    """
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    colourless = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return as_text(results, max(width, 60), plain if colourless else coloured)


def _paragraph(result: Result, width: int, paint: Paint) -> list[str]:
    finding = result.finding
    evidence = _wrapped(finding.evidence, width - _INDENT)
    first = f"{result.check.id:{_IDS}}  {paint(finding.verdict)}  {evidence[0]}"
    rest = [" " * _INDENT + line for line in evidence[1:]]
    advice = _wrapped(finding.advice, width - _INDENT - 3)
    marks = ["-> ", *["   "] * len(advice)]
    return [first, *rest, *(" " * _INDENT + mark + line for mark, line in zip(marks, advice))]


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters; longer words, such as paths, are not broken."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
