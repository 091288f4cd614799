"""The log: entries with fields in the systemd journal, plain lines on stderr anywhere else.

Every kind of event that an operator may look for has a MESSAGE_ID of its own, so that
`journalctl MESSAGE_ID=…` finds all of a kind whatever their words.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
from collections.abc import Iterable

from isolcpus_dp.host import cpulist


class Event(enum.Enum):
    """The kinds of events and their MESSAGE_IDs; an id once given is never changed."""

    STARTED = "38800449425f49d2aac721b30cc9a9ea"
    WAITING = "50f83a685efe44b7b02b0ecd5392ee6b"
    REGISTERED = "c847bc017e464bd08cc321d4144abde5"
    REFUSED = "91469382c001400aa916ca89d75421ab"
    KUBELET_LEFT = "d5876b52c7704a579400ac201cf87092"
    DEVICES_CHANGED = "6007af1418bd47f0b423efb610e30e29"
    ALLOCATED = "7e3395a9965549b6bfbc6c829c9665aa"
    ALLOCATION_REFUSED = "40e52390263b4b63b9e05e256eeae9e0"
    POOL_WARNING = "6707830f5a624b5d8d7cc21d7717da39"
    PINNED = "1f694912da4f4985af7823fa836ed77b"
    NOT_PINNED = "c60873dd14d64af4848e73806fa088d1"
    UNDECIDED = "be0dec8a80dd4bc5a9ce209999d73f8e"
    SYNCHRONIZED = "3886d48b6936486981514026f65f78b4"
    RUNTIME_LEFT = "cb66b2a80c084373bfc2cbd6ffc00dd1"
    QUOTA_LIFTED = "1f7afe309be54b07b7f3c209ae294184"
    QUOTA_KEPT = "7fdfc730d7e24f3ba7fd102f6752ebcc"
    STOPPED = "37a596d3733642edb5c6779f4a1e6b86"
    FAILED = "f36bef50772e4b098008e1917bc60e45"


def fields(
    event: Event, *, resource: str | None = None, cpus: Iterable[int] | None = None, **more: object
) -> dict[str, object]:
    """The journal fields of an entry, for the `extra` of a logging call."""
    found: dict[str, object] = {"EVENT": event.name.lower(), "MESSAGE_ID": event.value}
    if resource is not None:
        found["RESOURCE"] = resource
    if cpus is not None:
        found["CPU"] = cpulist.render(cpus)
    return {**found, **{name.upper(): str(value) for name, value in more.items()}}


def set_up(identifier: str, level: int) -> None:
    """Sends all log entries of the process to the journal if stderr leads there, or else there."""
    logging.basicConfig(handlers=[_handler(identifier)], level=level, format="%(message)s")


def _handler(identifier: str) -> logging.Handler:
    if not _stderr_is_journal():
        return logging.StreamHandler(sys.stderr)
    from systemd.journal import JournalHandler  # 8 ms that a terminal does not need

    handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER=identifier)
    return handler


def _stderr_is_journal() -> bool:
    """systemd.exec(5): JOURNAL_STREAM names device and inode of the stream it made for stderr."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
