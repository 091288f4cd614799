"""The fields of an entry, and where entries go."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from isolcpus_dp.service import events
from isolcpus_dp.service.events import Event, fields

# As released: operators and their tools search for these.
MESSAGE_IDS = {
    "STARTED": "38800449425f49d2aac721b30cc9a9ea",
    "WAITING": "50f83a685efe44b7b02b0ecd5392ee6b",
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
    "SYNCHRONIZED": "3886d48b6936486981514026f65f78b4",
    "RUNTIME_LEFT": "cb66b2a80c084373bfc2cbd6ffc00dd1",
    "QUOTA_LIFTED": "1f7afe309be54b07b7f3c209ae294184",
    "QUOTA_KEPT": "7fdfc730d7e24f3ba7fd102f6752ebcc",
    "STOPPED": "37a596d3733642edb5c6779f4a1e6b86",
    "FAILED": "f36bef50772e4b098008e1917bc60e45",
}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+") as opened:
        yield opened


@contextlib.contextmanager
def set_up(stderr: TextIO, journal_stream: str) -> Iterator[logging.Logger]:
    """The root logger as the daemon has it; pytest's own handlers are put aside meanwhile."""
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
    assert Event[name].value == message_id


def test_every_event_has_its_message_id_held() -> None:
    assert list(MESSAGE_IDS) == [event.name for event in Event]


def test_every_event_has_a_message_id_of_its_own() -> None:
    # Events with one value would be one event with two names.
    assert len(Event) == len(Event.__members__)
    assert all(len(bytes.fromhex(event.value)) == 16 for event in Event)


def test_fields_of_an_event_alone() -> None:
    assert fields(Event.STOPPED) == {
        "EVENT": "stopped",
        "MESSAGE_ID": "37a596d3733642edb5c6779f4a1e6b86",
    }


def test_fields_of_an_event_about_cpus() -> None:
    assert fields(
        Event.ALLOCATED, resource="windriver.com/isolcpus", cpus={35, 2, 34, 3}, devices=4
    ) == {
        "EVENT": "allocated",
        "MESSAGE_ID": "7e3395a9965549b6bfbc6c829c9665aa",
        "RESOURCE": "windriver.com/isolcpus",
        "CPU": "2-3,34-35",
        "DEVICES": "4",
    }


def test_no_cpu_at_all_is_a_field_too() -> None:
    assert fields(Event.DEVICES_CHANGED, cpus=[])["CPU"] == ""


def test_fields_may_go_into_any_entry(caplog: pytest.LogCaptureFixture) -> None:
    extra = fields(Event.REGISTERED, resource="example.com/rt", cpus=[1], devices=1, unhealthy=0)
    logging.getLogger("isolcpus_dp").warning("registered", extra=extra)
    assert caplog.records[0].__dict__["UNHEALTHY"] == "0"


@pytest.mark.parametrize("journal_stream", ["", "8:1"])
def test_entries_are_plain_lines_if_stderr_leads_elsewhere(
    file: TextIO, journal_stream: str
) -> None:
    with set_up(file, journal_stream) as root:
        root.info("allocated CPU %s", "2-3", extra=fields(Event.ALLOCATED))
        root.debug("unseen")
    file.seek(0)
    assert file.read() == "allocated CPU 2-3\n"


def test_entries_go_to_the_journal_if_stderr_leads_there(file: TextIO) -> None:
    with set_up(file, identity(file)) as root:
        assert [type(handler).__name__ for handler in root.handlers] == ["JournalHandler"]


def test_entries_are_plain_lines_if_stderr_is_no_file() -> None:
    text = io.StringIO()
    with set_up(text, "8:1") as root:
        root.warning("here")
    assert text.getvalue() == "here\n"


# The catalogue: what journalctl -x says

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
def test_every_event_is_explained_and_says_what_to_do(event: Event) -> None:
    subject, text = catalogue()[event.value]
    assert subject
    assert len(text.split("\n\n")) >= 2 or event is Event.FAILED, "what it means, what to do"


def test_nothing_else_is_explained() -> None:
    assert set(catalogue()) == {event.value for event in Event}


def test_every_event_is_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for event in Event:
        assert f"| `{event.name.lower()}` | `{event.value}` |" in readme
