"""Which entries of the journal the documentation describes.

docs/faults.md quotes in its third column what the journal says, and docs/operations.md in its table
of what happens when. They also name events: each stands for all its messages, except for those of
all sorts of faults.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from isolcpus_dp.service.events import Event
from tests import book

_EVENTS = {event.name.lower() for event in Event}
# These events, and entries of systemd, need a quote of their message: it has another's reason.
_OF_ALL_SORTS = {
    *("", "failed", "degraded", "refused", "allocation_refused", "update_failed"),
    *("runtime_refused", "protocol_error"),
}
_OPERATIONS_HEADING = "## What happens when"


@dataclass(frozen=True)
class Described:
    """A row of a table: fragments of messages, and the kinds of events."""

    quotes: tuple[str, ...]
    events: frozenset[str]

    def fits(self, entry: Entry) -> bool:
        """Whether the row describes an entry."""
        if entry.event not in _OF_ALL_SORTS:
            return entry.event in self.events
        if entry.event and self.events and entry.event not in self.events:
            return False
        return any(re.search(_pattern(quote), entry.message) for quote in self.quotes)


@dataclass(frozen=True)
class Entry:
    """An entry of the journal; `event` is empty if systemd itself wrote it."""

    unit: str
    message: str
    priority: int
    event: str = ""


def described() -> list[Described]:
    """What the two pages describe."""
    faults = (row[2] for row in _rows(book.text_of("docs/faults.md")) if len(row) == 5)
    operations = book.text_of("docs/operations.md").partition(_OPERATIONS_HEADING)[2]
    table = operations.partition("\n## ")[0]
    cells = [*faults, *(row[1] for row in _rows(table))]
    found = [
        Described(
            tuple(re.findall(r'"([^"]+)"', cell)),
            frozenset(re.findall(r"`(?:EVENT=)?([a-z_]+)`", cell)) & _EVENTS,
        )
        for cell in cells
    ]
    return [one for one in found if one.quotes or one.events]


def parse(text: str) -> list[Entry]:
    """The entries that `journalctl --output=json` has printed."""
    return [_entry(json.loads(line)) for line in text.splitlines()]


def undescribed(entries: Iterable[Entry], rows: Sequence[Described]) -> list[str]:
    """A sentence for each entry that no row describes, and for each traceback."""
    return [
        f"{one.unit}: {one.message}"
        for one in entries
        if "Traceback" in one.message or not any(row.fits(one) for row in rows)
    ]


def _rows(text: str) -> list[list[str]]:
    """The cells of all rows of a page's tables."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]


def _pattern(quote: str) -> str:
    """A regular expression; `...` stands for anything."""
    return ".*".join(map(re.escape, quote.split("...")))


def _entry(fields: dict[str, Any]) -> Entry:
    message = fields["MESSAGE"]
    if isinstance(message, list):  # bytes, some of which are not printable
        message = bytes(message).decode(errors="replace")
    return Entry(
        unit=fields.get("UNIT") or fields.get("_SYSTEMD_UNIT", ""),
        message=message,
        priority=int(fields["PRIORITY"]),
        event=fields.get("EVENT", ""),
    )


def shows_hung_runtime(entries: Iterable[Entry]) -> bool:
    """Whether the runtime has not answered the pinning daemon, as in containerd issue 13733."""
    return any(
        one.event in ("update_failed", "runtime_refused") and "no answer" in one.message
        for one in entries
    )


def kind(message: str) -> str:
    """A message without its numbers, to count entries of the same kind."""
    return re.sub(r"\d+", "N", message)
