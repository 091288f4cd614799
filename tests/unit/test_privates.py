"""Tests and benchmarks use only the public names of modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# All files except this one, which contains examples.
FILES = [
    path
    for path in (*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").iterdir())
    if path.is_file() and path != Path(__file__)
]


def privates(source: str) -> Iterator[str]:
    """The private names that the source reads or replaces, also in strings with code.

    Without those that a class reads by `self`, `cls` or super(), and without __these__.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not is_own(node.value):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{a.name}" for a in node.names if is_private(a.name))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\b(?!self\b|cls\b)[a-z]\w*(?:\.\w+)*\._(?!_)\w+", node.value)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_own(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        value = value.func
        return isinstance(value, ast.Name) and value.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def test_private_names_are_found_in_code_and_strings() -> None:
    source = """
from isolcpus_dp.host.machine import _number, read
watch._descriptor
make()._live(host._machine.root)
monkeypatch.setattr("isolcpus_dp.placement._FEW_SETS", 0)
run("import inotify; inotify._libc.inotify_init1 = fail")
self._own + cls._own + super()._own + self.__class__.__name__ + "a sentence. _Not_ a name"
"""
    assert sorted(privates(source)) == [
        "host._machine",
        "inotify._libc",
        "isolcpus_dp.host.machine._number",
        "isolcpus_dp.placement._FEW_SETS",
        "make()._live",
        "watch._descriptor",
    ]


def test_no_private_name_is_used() -> None:
    found = {
        (str(path.relative_to(ROOT)), name) for path in FILES for name in privates(path.read_text())
    }
    assert found == set()
