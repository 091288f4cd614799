"""Which entries of the journal the pages describe."""

from __future__ import annotations

import json

import pytest

from tests.vm.soak import journal
from tests.vm.soak.journal import Described, Entry

PIN = "isolcpus-dp-pin.service"


def entry(message: str, event: str = "") -> Entry:
    return Entry(PIN, message, 4, event)


QUOTED = Described(("could not write ...: No space left",), frozenset({"degraded"}))
BY_EVENT = Described((), frozenset({"devices_changed"}))


def test_quote_of_a_row_is_a_part_of_the_message() -> None:
    assert QUOTED.fits(entry("could not write /run/x: No space left on device", "degraded"))
    assert not QUOTED.fits(entry("could not read /run/x: No space left on device", "degraded"))


def test_row_does_not_describe_all_faults() -> None:
    assert not QUOTED.fits(entry("another part of the host has failed", "degraded"))
    assert not QUOTED.fits(entry("could not write /run/x: No space left", "failed"))


def test_row_describes_all_messages_of_a_narrow_event() -> None:
    assert BY_EVENT.fits(entry("CPU 3 is offline", "devices_changed"))
    assert not BY_EVENT.fits(entry("CPU 3 is offline"))


def test_messages_of_systemd_need_a_quote() -> None:
    row = Described(("Watchdog timeout",), frozenset({"runtime_left"}))
    assert row.fits(entry("isolcpus-dp-pin.service: Watchdog timeout (limit 30s)!"))


def test_traceback_is_never_described() -> None:
    traceback = entry("CPU 3\nTraceback (most recent call last):", "devices_changed")
    assert journal.undescribed([traceback], [BY_EVENT]) == [f"{PIN}: {traceback.message}"]
    assert journal.undescribed([entry("CPU 3", "devices_changed")], [BY_EVENT]) == []


def test_output_of_journalctl_is_parsed() -> None:
    of_systemd = {"MESSAGE": "stopped", "PRIORITY": "4", "UNIT": PIN, "_SYSTEMD_UNIT": "init.scope"}
    own = {"MESSAGE": list(b"a\xff"), "PRIORITY": "3", "_SYSTEMD_UNIT": PIN, "EVENT": "failed"}
    assert journal.parse(f"{json.dumps(of_systemd)}\n{json.dumps(own)}\n") == [
        Entry(PIN, "stopped", 4),
        Entry(PIN, "a\ufffd", 3, "failed"),
    ]


@pytest.mark.parametrize(
    "described",
    [
        entry("the worker was killed by SIGKILL; starting the next one", "failed"),
        entry("CPU 3 is offline; reported to the kubelet", "devices_changed"),
        entry("isolcpus-dp.service: Main process exited, code=killed, status=9/KILL"),
    ],
    ids=lambda one: str(one.message),
)
def test_pages_describe_what_usually_happens(described: Entry) -> None:
    assert journal.undescribed([described], journal.described()) == []


def test_pages_do_not_describe_internal_errors() -> None:
    internal = entry("internal error while pinning container a of pod b", "undecided")
    assert journal.undescribed([internal], journal.described()) == [f"{PIN}: {internal.message}"]


def test_messages_that_differ_in_numbers_are_of_one_kind() -> None:
    assert journal.kind("process 12 of 3") == journal.kind("process 1 of 456") == ("process N of N")


def test_runtime_hangs_if_it_does_not_answer() -> None:
    update = "could not update container main of pod default/a: {}"
    assert journal.shows_hung_runtime([entry(update.format("no answer"), "update_failed")])
    assert not journal.shows_hung_runtime([entry(update.format("not found"), "update_failed")])
