"""The fields of log entries, and their destination."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from isolcpus_dp.service import events
from isolcpus_dp.service.events import Event, emit

# Released: operators and their tools search for these.
MESSAGE_IDS = {
    "STARTED": "38800449425f49d2aac721b30cc9a9ea",
    "WAITING": "50f83a685efe44b7b02b0ecd5392ee6b",
    "STOPPED": "37a596d3733642edb5c6779f4a1e6b86",
    "FAILED": "f36bef50772e4b098008e1917bc60e45",
    "DEGRADED": "e3aaa3c036dc4d10939d5648219481b8",
    "RELOADED": "c279d77b609c4b768152f26b064092e6",
    "RELOAD_FAILED": "3f72bbc4754a4f5fa88b22bdfa09aaee",
    "REGISTERED": "c847bc017e464bd08cc321d4144abde5",
    "REFUSED": "91469382c001400aa916ca89d75421ab",
    "KUBELET_LEFT": "d5876b52c7704a579400ac201cf87092",
    "DEVICES_CHANGED": "6007af1418bd47f0b423efb610e30e29",
    "ALLOCATED": "7e3395a9965549b6bfbc6c829c9665aa",
    "ALLOCATION_REFUSED": "40e52390263b4b63b9e05e256eeae9e0",
    "POOL_WARNING": "6707830f5a624b5d8d7cc21d7717da39",
    "PINNED": "1f694912da4f4985af7823fa836ed77b",
    "NOT_PINNED": "c60873dd14d64af4848e73806fa088d1",
    "UNDECIDED": "be0dec8a80dd4bc5a9ce209999d73f8e",
    "CONTAINER_REFUSED": "2b03961c982d4f6b9ffbf0545c531d0e",
    "OWNED_TWICE": "1df9577c51b442b19a807709c85cdb9d",
    "UPDATE_FAILED": "fdde25f930f74fb4be8356e792643a26",
    "QUOTA_LIFTED": "1f7afe309be54b07b7f3c209ae294184",
    "QUOTA_RESTORED": "02cdb4bbca8d468b8160a9ba430a3a6a",
    "QUOTA_KEPT": "7fdfc730d7e24f3ba7fd102f6752ebcc",
    "SYNCHRONIZED": "3886d48b6936486981514026f65f78b4",
    "CPUS_CHANGED": "febf2d5e6afe4ff8a769acf8c93ef3b5",
    "RUNTIME_REFUSED": "50a2e84b24e341ff9071b3e47e8ddc94",
    "RUNTIME_LEFT": "cb66b2a80c084373bfc2cbd6ffc00dd1",
    "PROTOCOL_ERROR": "6b2fa9b77e5f4de08d6590edbce1e118",
    "CALL_FAILED": "c3ce915b410f4682909e26d184b0daf9",
}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+") as opened:
        yield opened


@contextlib.contextmanager
def set_up(stderr: TextIO, journal_stream: str) -> Iterator[logging.Logger]:
    """The root logger as in the daemon, without pytest's own handlers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        patch.setattr(logging.root, "level", logging.WARNING)
        patch.setattr(sys, "stderr", stderr)
        patch.setenv("JOURNAL_STREAM", journal_stream)
        events.set_up("isolcpus-dp", logging.INFO)
        yield logging.root


def identity(file: TextIO) -> str:
    status = Path(file.name).stat()
    return f"{status.st_dev}:{status.st_ino}"


@pytest.mark.parametrize(("name", "message_id"), MESSAGE_IDS.items())
def test_message_id_never_changes(name: str, message_id: str) -> None:
    assert Event[name].message_id == message_id


def test_every_event_is_in_the_released_list() -> None:
    assert list(MESSAGE_IDS) == [event.name for event in Event]


def test_message_ids_are_unique() -> None:
    assert len({event.message_id for event in Event}) == len(Event.__members__)
    assert all(len(bytes.fromhex(event.message_id)) == 16 for event in Event)


def emitted(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    """The journal fields of the one entry that was logged."""
    [record] = caplog.records
    return {name: value for name, value in vars(record).items() if name.isupper()}


def test_entry_of_an_event_without_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    emit(logging.getLogger("isolcpus_dp"), Event.STOPPED, "asked to stop")
    assert caplog.messages == ["asked to stop"]
    assert caplog.records[0].levelno == logging.INFO
    assert emitted(caplog) == {"EVENT": "stopped", "MESSAGE_ID": "37a596d3733642edb5c6779f4a1e6b86"}


def test_entry_of_an_event_about_cpus(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    emit(
        logging.getLogger("isolcpus_dp"), Event.ALLOCATED, "allocated CPU %s", "2-3",
        resource="windriver.com/isolcpus", cpus={35, 2, 34, 3}, devices=4,
    )  # fmt: skip
    assert caplog.messages == ["allocated CPU 2-3"]
    assert emitted(caplog) == {
        "EVENT": "allocated",
        "MESSAGE_ID": "7e3395a9965549b6bfbc6c829c9665aa",
        "RESOURCE": "windriver.com/isolcpus",
        "CPU": "2-3,34-35",
        "DEVICES": "4",
    }


def test_empty_set_of_cpus_is_an_empty_field(caplog: pytest.LogCaptureFixture) -> None:
    emit(logging.getLogger("x"), Event.DEVICES_CHANGED, "gone", resource="x/y", cpus=[])
    assert emitted(caplog)["CPU"] == ""


def test_entry_names_the_line_that_emits_it(caplog: pytest.LogCaptureFixture) -> None:
    emit(logging.getLogger("isolcpus_dp"), Event.FAILED, "here")
    assert caplog.records[0].filename == "test_events.py"


def test_traceback_of_an_exception_follows_the_message(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("a bug")
    except ValueError:
        emit(logging.getLogger("isolcpus_dp"), Event.CALL_FAILED, "no answer", exception=True)
    assert "ValueError: a bug" in caplog.text


# Every call in the package


PACKAGE = Path(__file__).parents[2] / "isolcpus_dp"
CALLS = [
    (f"{file.relative_to(PACKAGE)}:{node.lineno}", node)
    for file in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text()))
    if isinstance(node, ast.Call)
]


def called(call: ast.Call) -> str:
    """The last part of the called name: emit for emit() and for events.emit()."""
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


EMITS = [(where, call) for where, call in CALLS if called(call) == "emit"]


@pytest.mark.parametrize(("where", "call"), EMITS, ids=[where for where, _ in EMITS])
def test_call_passes_all_fields_of_its_event(where: str, call: ast.Call) -> None:
    event = call.args[1]
    assert isinstance(event, ast.Attribute), f"{where} does not name its event"
    given = {"CPU" if word.arg == "cpus" else (word.arg or "").upper() for word in call.keywords}
    assert set(Event[event.attr].fields) <= given, f"{where} lacks a field of {event.attr}"


def test_every_event_is_emitted_somewhere() -> None:
    emitted = {call.args[1].attr for _, call in EMITS if isinstance(call.args[1], ast.Attribute)}
    assert emitted == {event.name for event in Event}


def test_warnings_and_errors_are_events() -> None:
    unnamed = [
        where
        for where, call in CALLS
        if called(call) in ("warning", "error", "exception", "critical")
        and isinstance(call.func, ast.Attribute)
        and getattr(call.func.value, "id", "") in ("log", "logging", "logger")
    ]
    assert unnamed == []


# The destination of entries


@pytest.mark.parametrize("journal_stream", ["", "8:1"])
def test_entries_are_lines_if_stderr_is_not_the_journal(file: TextIO, journal_stream: str) -> None:
    with set_up(file, journal_stream) as root:
        emit(root, Event.STOPPED, "asked to stop by %s", "systemd")
        root.debug("below the level")
    file.seek(0)
    assert file.read() == "asked to stop by systemd\n"


def test_entries_go_to_the_journal_if_stderr_is_the_journal(file: TextIO) -> None:
    with set_up(file, identity(file)) as root:
        assert [type(handler).__name__ for handler in root.handlers] == ["JournalHandler"]


def test_entries_are_lines_if_stderr_has_no_descriptor() -> None:
    text = io.StringIO()
    with set_up(text, "8:1") as root:
        root.warning("here")
    assert text.getvalue() == "here\n"


# The catalogue of journalctl -x

CATALOGUE = Path(__file__).parents[2] / "packaging" / "isolcpus-dp.catalog"


def catalogue() -> dict[str, tuple[str, str]]:
    """By MESSAGE_ID: the subject and the text below the header."""
    entries = {}
    for entry in CATALOGUE.read_text().split("\n-- ")[1:]:
        head, _, text = entry.partition("\n\n")
        message_id, *lines = head.splitlines()
        fields = dict(line.split(": ", 1) for line in lines)
        assert message_id not in entries, f"{message_id} is explained twice"
        entries[message_id] = (fields["Subject"], text.strip())
    return entries


@pytest.mark.parametrize("event", Event, ids=lambda event: str(event.name))
def test_catalogue_explains_every_event(event: Event) -> None:
    subject, text = catalogue()[event.message_id]
    assert subject
    assert len(text.split("\n\n")) >= 2 or event is Event.FAILED, "a cause and what to do"


def test_catalogue_explains_no_other_event() -> None:
    assert set(catalogue()) == {event.message_id for event in Event}


def test_operations_page_lists_the_events_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([0-9a-f]{32})` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    assert rows == [
        (
            event.name.lower(),
            event.message_id,
            {logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}[
                event.severity
            ],
            ", ".join(f"`{name}=`" for name in event.fields) or "none",
        )
        for event in Event
    ]
