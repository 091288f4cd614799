"""The log: entries with fields in the systemd journal, or plain lines on stderr.

Each kind of event has its own MESSAGE_ID, so that `journalctl MESSAGE_ID=…` finds all events of
that kind. packaging/isolcpus-dp.catalog explains each one and says what to do.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
from collections.abc import Iterable

from isolcpus_dp.host import cpulist, files


class Event(enum.Enum):
    """The kinds of events: MESSAGE_ID, severity, and the fields that each entry carries.

    A released MESSAGE_ID never changes. In addition to its own fields, each entry has EVENT: the
    name of the kind in lower case.
    """

    STARTED = "38800449425f49d2aac721b30cc9a9ea", logging.INFO, "CPU"
    WAITING = "50f83a685efe44b7b02b0ecd5392ee6b", logging.INFO
    STOPPED = "37a596d3733642edb5c6779f4a1e6b86", logging.INFO
    FAILED = "f36bef50772e4b098008e1917bc60e45", logging.ERROR
    DEGRADED = "e3aaa3c036dc4d10939d5648219481b8", logging.ERROR
    RELOADED = "c279d77b609c4b768152f26b064092e6", logging.INFO
    RELOAD_FAILED = "3f72bbc4754a4f5fa88b22bdfa09aaee", logging.ERROR
    # The device plugin
    REGISTERED = "c847bc017e464bd08cc321d4144abde5", logging.INFO, "RESOURCE", "CPU"
    REFUSED = "91469382c001400aa916ca89d75421ab", logging.ERROR, "RESOURCE", "CPU"
    KUBELET_LEFT = "d5876b52c7704a579400ac201cf87092", logging.INFO
    DEVICES_CHANGED = "6007af1418bd47f0b423efb610e30e29", logging.WARNING, "RESOURCE", "CPU"
    ALLOCATED = "7e3395a9965549b6bfbc6c829c9665aa", logging.INFO, "RESOURCE", "CPU"
    ALLOCATION_REFUSED = "40e52390263b4b63b9e05e256eeae9e0", logging.WARNING, "RESOURCE"
    POOL_WARNING = "6707830f5a624b5d8d7cc21d7717da39", logging.WARNING, "RESOURCE"
    # The pinning daemon
    PINNED = "1f694912da4f4985af7823fa836ed77b", logging.INFO, "CPU", "POD", "CONTAINER"
    NOT_PINNED = "c60873dd14d64af4848e73806fa088d1", logging.WARNING, "POD", "CONTAINER"
    UNDECIDED = "be0dec8a80dd4bc5a9ce209999d73f8e", logging.ERROR, "POD", "CONTAINER"
    CONTAINER_REFUSED = "2b03961c982d4f6b9ffbf0545c531d0e", logging.ERROR, "POD", "CONTAINER"
    OWNED_TWICE = (
        "1df9577c51b442b19a807709c85cdb9d", logging.ERROR,
        "CPU", "POD", "CONTAINER", "OTHER_POD", "OTHER_CONTAINER",
    )  # fmt: skip
    UPDATE_FAILED = "fdde25f930f74fb4be8356e792643a26", logging.WARNING, "POD", "CONTAINER"
    QUOTA_LIFTED = "1f7afe309be54b07b7f3c209ae294184", logging.INFO, "POD"
    QUOTA_RESTORED = "02cdb4bbca8d468b8160a9ba430a3a6a", logging.INFO, "POD"
    QUOTA_KEPT = "7fdfc730d7e24f3ba7fd102f6752ebcc", logging.WARNING, "POD"
    SYNCHRONIZED = "3886d48b6936486981514026f65f78b4", logging.INFO
    CPUS_CHANGED = "febf2d5e6afe4ff8a769acf8c93ef3b5", logging.INFO, "CPU"
    RUNTIME_REFUSED = "50a2e84b24e341ff9071b3e47e8ddc94", logging.WARNING
    RUNTIME_LEFT = "cb66b2a80c084373bfc2cbd6ffc00dd1", logging.INFO
    PROTOCOL_ERROR = "6b2fa9b77e5f4de08d6590edbce1e118", logging.WARNING
    CALL_FAILED = "c3ce915b410f4682909e26d184b0daf9", logging.ERROR

    def __init__(self, message_id: str, severity: int, *fields: str) -> None:
        self.message_id = message_id
        self.severity = severity
        self.fields = fields


def emit(
    log: logging.Logger,
    event: Event,
    message: str,
    *words: object,
    cpus: Iterable[int] | None = None,
    exception: bool = False,
    **more: object,
) -> None:
    """Logs an event: `message` formatted with `words`, and the event's fields.

    `cpus` becomes the field CPU, a CPU list; other keyword arguments become fields with their name
    in upper case. With `exception`, the traceback of the current exception is added. A unit test
    checks that every call passes all fields of its event.

    Words and fields may contain names that others chose: what is not printable becomes `?`, and no
    word adds a line. Only a failure may be a traceback, which keeps its lines.
    """
    extra: dict[str, object] = {"EVENT": event.name.lower(), "MESSAGE_ID": event.message_id}
    if cpus is not None:
        extra["CPU"] = cpulist.render(cpus)
    extra.update((name.upper(), files.printable(str(value))) for name, value in more.items())
    shown = (_shown(word, has_lines=event is Event.FAILED) for word in words)
    log.log(event.severity, message, *shown, exc_info=exception, extra=extra, stacklevel=2)


def _shown(word: object, *, has_lines: bool) -> object:
    """A word of a message as it is logged; numbers are formatted by the message."""
    if isinstance(word, (int, float)):
        return word
    lines = str(word).split("\n") if has_lines else [str(word)]
    return "\n".join(map(files.printable, lines))


def set_up(identifier: str, level: int) -> None:
    """Sends all log entries to the journal if stderr is connected to it, else to stderr."""
    logging.basicConfig(handlers=[_handler(identifier)], level=level, format="%(message)s")


def _handler(identifier: str) -> logging.Handler:
    if not _stderr_is_journal():
        return logging.StreamHandler(sys.stderr)
    from systemd.journal import JournalHandler  # imported only when needed: it takes 8 ms

    from isolcpus_dp.service import journal

    handler: logging.Handler = JournalHandler(
        sender_function=journal.Sender(), SYSLOG_IDENTIFIER=identifier
    )
    return handler


def _stderr_is_journal() -> bool:
    """Whether stderr is connected to the journal.

    systemd.exec(5): JOURNAL_STREAM has the device and inode of the stream that systemd created.
    """
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
