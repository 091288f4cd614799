"""Runs the fuzz targets without atheris: over their seed corpora, and over a few random inputs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, sentences, table
from tests.fuzz.__main__ import fault

SEEDS = [(name, file) for name in table.NAMES for file in table.corpus(name)]

every_target = pytest.mark.parametrize("name", table.NAMES)


def test_there_are_eight_targets_and_each_has_a_corpus() -> None:
    assert table.NAMES == (
        "annotations",
        "cmdline",
        "configuration",
        "cpulist",
        "interrupts",
        "kubelet",
        "sysfs",
        "transport",
    )
    assert {path.name for path in table.DIRECTORY.iterdir()} == set(table.NAMES)


@pytest.mark.parametrize(
    ("name", "file"), SEEDS, ids=[f"{name}/{file.name}" for name, file in SEEDS]
)
def test_seed_is_accepted_unless_its_name_says_refused(name: str, file: Path) -> None:
    assert table.load(name)(file.read_bytes()) is not file.name.startswith("refused-")


@every_target
@settings(max_examples=25)
@given(data=st.binary(max_size=300))
def test_random_bytes_are_no_fault(name: str, data: bytes) -> None:
    table.load(name)(data)


@every_target
@settings(max_examples=25)
@given(data=st.data())
def test_changed_seeds_are_no_fault(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(table.corpus(name))).read_bytes()
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(start + 8, len(seed))))
    table.load(name)(seed[:start] + data.draw(st.binary(max_size=4)) + seed[end:])


def test_parts_are_between_lines_of_two_percent_signs() -> None:
    assert inputs.parts(b"a: 5%%\nb\n%%\n\n%%\nc", 3) == [b"a: 5%%\nb", b"", b"c"]
    assert inputs.parts(b"a\n%%\nb\n%%\nc", 2) == [b"a", b"b\n%%\nc"]
    assert inputs.parts(b"a", 3) == [b"a", b"", b""]


def test_tree_has_only_files_below_its_root(tmp_path: Path) -> None:
    root = tmp_path / "sys"
    root.mkdir()
    lines = b"../a: 1\n/b: 2\nc/../../d: 3\ne/f: 4\ne: 5\ne/f/g: 6\nno colon\nh: \xff\n\0: 7\n"
    inputs.write_tree(root, lines)
    assert [path.name for path in tmp_path.iterdir()] == ["sys"]
    assert {str(path.relative_to(root)) for path in root.rglob("*")} == {"e", "e/f", "h"}
    assert (root / "e/f").read_bytes() == b"4\n"
    assert (root / "h").read_bytes() == b"\xff\n"


@pytest.mark.parametrize("text", ["", " ", "two\nlines"])
def test_message_that_is_not_one_line_is_a_fault(text: str) -> None:
    with pytest.raises(AssertionError):
        sentences.require(text)


def test_fault_is_named_with_the_command_that_repeats_it() -> None:
    stderr = (
        "INFO: Seed: 1\n==77== ERROR: libFuzzer: fuzz target exited\n"
        "artifact_prefix='f/'; Test unit written to build/fuzz/faults/cpulist/crash-0f\n"
    )
    assert fault("cpulist", "Traceback\nTypeError: no\n", stderr) == (
        "Traceback\nTypeError: no\n==77== ERROR: libFuzzer: fuzz target exited\n"
        "cpulist: fault; repeat it: build/venv/bin/python -m tests.fuzz cpulist"
        " build/fuzz/faults/cpulist/crash-0f"
    )


def test_search_that_cannot_start_has_its_output_in_a_file() -> None:
    stderr = "Traceback\nModuleNotFoundError: No module named 'atheris'\n"
    assert fault("cpulist", "", stderr) == (
        "ModuleNotFoundError: No module named 'atheris'\ncpulist: fault; see build/fuzz/cpulist.log"
    )
