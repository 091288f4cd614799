"""Prints a plan: as text for an administrator, as JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Part
    from isolcpus_dp.plan.parts import Plan

_WIDTH = 100


def as_text(plan: Plan, write: str) -> str:
    """The goal, a block for each part, and what to run next: first the command that writes it."""
    goal = plan.goal
    lines = [
        *_wrapped(f"isolated      CPU {render(goal.isolated)}", " " * 14),
        *_wrapped(f"housekeeping  CPU {render(goal.housekeeping)}", " " * 14),
        *_notes(plan.notes, ""),
    ]
    for part in plan.parts:
        lines += ["", *_block(part)]
    return "\n".join([*lines, "", *_next(plan, write)])


def after_writing(plan: Plan, written: list[str], removed: list[str]) -> str:
    """What was written and removed, what is left to the administrator, and what to run next."""
    lines = [f"wrote {path}" for path in written]
    lines += [f"removed {path}" for path in removed]
    lines = lines or ["all files are already as planned"]
    for part in plan.parts:
        lines += _notes(part.notes, f"{part.name}: ")
    return "\n".join([*lines, *_notes(plan.notes, ""), "", *_next(plan)])


def as_json(
    plan: Plan,
    *,
    written: list[str] | None = None,
    removed: list[str] | None = None,
    differences: list[str] | None = None,
) -> str:
    """Machine-readable output, described in docs/plan.schema.json.

    With the paths that --write has written and removed, or the differences that --diff has found.
    """
    found: dict[str, object] = {
        "isolated": render(plan.goal.isolated),
        "housekeeping": render(plan.goal.housekeeping),
        "kernel_arguments": list(plan.arguments),
        "notes": list(plan.notes),
        "parts": [
            {
                "name": part.name,
                "summary": part.summary,
                "files": [{"path": str(file.path), "text": file.text} for file in part.files],
                "commands": list(part.commands),
                "notes": list(part.notes),
            }
            for part in plan.parts
        ],
        "next": plan.commands,
    }
    more = {"written": written, "removed": removed, "differences": differences}
    found.update({name: value for name, value in more.items() if value is not None})
    return json.dumps(found, indent=2)


def _block(part: Part) -> Iterator[str]:
    yield from _wrapped(f"{part.name}: {part.summary}", "  ")
    for file in part.files:
        yield f"  {file.path}"
        yield from (f"    {line}".rstrip() for line in file.text.splitlines())
    for command in part.commands:
        yield f"  run: {command}"
    yield from _notes(part.notes, "", "  ")


def _next(plan: Plan, first: str = "") -> Iterator[str]:
    yield "Next, as root; kubectl where it is configured, with the name of the node:"
    yield from (f"  {command}" for command in [first, *plan.commands] if command)


def _notes(notes: tuple[str, ...], name: str, indent: str = "") -> Iterator[str]:
    for note in notes:
        yield from _wrapped(f"{indent}note: {name}{note}", f"{indent}      ")


def _wrapped(text: str, indent: str) -> list[str]:
    """Lines; paths and lists are not broken."""
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
