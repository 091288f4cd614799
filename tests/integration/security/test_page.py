"""Each attack on docs/security.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests import book
from tests.book import ROOT

PAGE = book.text_of("docs/security.md")
# The cells of the tables whose last column is for tests.
ROWS = [
    [cell.strip() for cell in row.strip("| ").split(" | ")]
    for table in re.findall(
        r"^\| attack \|.*\| tests \|\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE
    )
    for row in table.splitlines()
]


def named(cell: str) -> list[tuple[str, str]]:
    """The tests in a cell, with the file that each is in."""
    found, file = [], ""
    for code in re.findall(r"`([^`]+)`", cell):
        if "/" in code:
            file = code
        else:
            found.append((file, code))
    return found


def functions(file: Path) -> set[str]:
    """The names of the tests in a file."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return {
        node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_all_tables_of_attacks_are_found() -> None:
    assert PAGE.count("| attack |") == 3
    assert len(ROWS) == sum(line.count(": `test_") > 0 for line in PAGE.splitlines())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_attack_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 3, row
    tests = named(row[2])
    assert tests, f"{row[0]}: names no test"
    for file, name in tests:
        assert name.startswith("test_"), name
        assert name in functions(ROOT / file), f"{file} has no {name}"


def test_tests_of_security_are_on_the_page() -> None:
    on_page = {test for row in ROWS for test in named(row[2])}
    files = [*(ROOT / "tests/unit").glob("test_security_*.py")]
    files += [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    written = {
        (str(file.relative_to(ROOT)), name)
        for file in files
        for name in functions(file)
        if name.startswith("test_")
    }
    assert written - on_page == {
        ("tests/unit/test_security_names.py", "test_traceback_of_a_failure_keeps_its_lines")
    }
