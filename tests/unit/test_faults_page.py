"""docs/faults.md: each fault has an outcome and tests that exist, and no test is forgotten."""

from __future__ import annotations

import re

import pytest

from tests import book
from tests.book import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in book.text_of("docs/faults.md").splitlines()
    if line.startswith("| ") and not line.startswith("| fault |")
]


def names_in(directory: str) -> set[str]:
    """The names of all tests below a directory."""
    return {
        name
        for file in (ROOT / directory).rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE)
    }


def named(cell: str) -> list[str]:
    """The tests that the last column of a row names."""
    return re.findall(r"`(test_\w+)`", cell)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_fault_has_an_outcome_and_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    assert named(row[-1])
    assert set(named(row[-1])) <= names_in("tests")


# What the tests of the faults build on.
PARTS = {
    "test_entry_has_its_message_and_fields",
    "test_lines_are_one_field_of_the_entry",
    "test_message_that_is_too_long_for_a_datagram_is_cut",
}


def test_every_test_of_a_fault_is_on_the_page() -> None:
    on_the_page = {name for row in ROWS for name in named(row[-1])}
    assert names_in("tests/integration/faults") - PARTS <= on_the_page


@pytest.mark.parametrize(
    "fault",
    [
        "runtime directory", "inotify instances or watches", "descriptors", "vanishes",
        "cannot be read", "netlink overrun", "clock jumps", "never answers", "garbage", "halfway",
        "10 MiB", "journal", "SIGTERM", "SIGSTOP", "worker is killed", "main process is killed",
    ],
)  # fmt: skip
def test_page_has_the_fault(fault: str) -> None:
    assert any(fault in row[0] for row in ROWS)
