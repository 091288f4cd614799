"""The JSON of a measurement: its schema, its content, and reading it again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from isolcpus_dp.measure.cause.cause import Cause, Kind
from isolcpus_dp.measure.result import Result
from isolcpus_dp.measure.show import document
from isolcpus_dp.measure.show.document import Document, DocumentError, Measured
from tests.unit.measure.cause.results import (
    MOVE_INTERRUPTS,
    QUIET_HISTOGRAM,
    result,
    without_tracefs,
)

ROOT = Path(__file__).parents[4]
SCHEMA = json.loads((ROOT / "docs/measure.schema.json").read_text())
HOW = "give a file that isolcpus-dp measure --json has written"

SMALL: dict[str, Any] = {
    "version": 1,
    "host": "node-1",
    "kernel": "6.1",
    "began": "2026-03-01T08:00:00Z",
    "seconds": 60.0,
    "limit_us": 20,
    "cpus": [
        {
            "cpu": 3,
            "seconds": 59.5,
            "longest_us": 41.0,
            "p99_999_us": 9,
            "over_limit": 2,
            "cause": {"kind": "ipi", "words": "interrupt CAL of other CPUs", "advice": ""},
        }
    ],
}


def validated(text: str) -> dict[str, Any]:
    content = json.loads(text)
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    return dict(content)


def written(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "before.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def changed(path: str, value: object) -> dict[str, Any]:
    """SMALL with another value at a place such as `cpus.0.longest_us`."""
    content: dict[str, Any] = json.loads(json.dumps(SMALL))
    *parents, last = path.split(".")
    inner: Any = content
    for name in parents:
        inner = inner[int(name) if name.isdecimal() else name]
    if value is Ellipsis:
        del inner[last]
    else:
        inner[last] = value
    return content


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_document_has_everything_of_a_cpu(mixed: Result) -> None:
    content = validated(document.as_json(mixed))
    assert [one["cpu"] for one in content["cpus"]] == [2, 3, 4, 5]
    assert content["cpus"][2] == {
        "cpu": 4,
        "seconds": 10.0,
        "longest_us": 41.0,
        "p99_999_us": 1,
        "over_limit": 30,
        "cause": {
            "kind": "device",
            "words": "interrupt 4 (ttyS0) fired 900 times (90/s), at most 8 us",
            "advice": MOVE_INTERRUPTS,
        },
        "histogram": {"1": 9_999_999, "40": 30},
        "activity": {
            "seconds": 10.0,
            "interrupts": {"4": 900},
            "softirqs": {},
            "threads": {},
            "works": {},
            "noises": [
                {
                    "source": "interrupt",
                    "name": "ttyS0",
                    "count": 900,
                    "total_us": 1800.0,
                    "longest_us": 8.0,
                }
            ],
            "loop": {
                "involuntary_switches": 0,
                "migrations": 0,
                "minor_faults": 0,
                "major_faults": 0,
            },
            "frequency_mhz": None,
            "smis": None,
        },
    }


def test_document_has_everything_of_the_host(mixed: Result) -> None:
    content = validated(document.as_json(mixed))
    del content["cpus"]
    assert content == {
        "version": 1,
        "host": "node-1",
        "kernel": "6.12.48-amd64",
        "arguments": "quiet isolcpus=domain,managed_irq,2-7 nohz_full=2-7",
        "began": "2026-03-02T10:15:00Z",
        "seconds": 10.0,
        "limit_us": 20.0,
        "isolated": "2-7",
        "housekeeping": "0-1",
        "watched": [
            {
                "cpu": 7,
                "owner": "default/router/main",
                "cause": {
                    "kind": "none",
                    "words": "nothing but threads that may be the owner's: thread forwarder/5 10/s",
                    "advice": "",
                },
                "activity": {
                    "seconds": 10.0,
                    "interrupts": {},
                    "softirqs": {},
                    "threads": {"forwarder/5": 100},
                    "works": {},
                    "noises": None,
                    "loop": None,
                    "frequency_mhz": None,
                    "smis": None,
                },
            }
        ],
        "dropped": [{"cpu": 6, "reason": "it got the owner default/web/main"}],
        "owners": {"7": "default/router/main"},
        "devices": {"4": "ttyS0"},
        "unseen": ["cannot read /dev/cpu/2/msr: run modprobe msr"],
    }


def test_document_of_nothing_is_valid(mixed: Result) -> None:
    empty = replace(result({}), watched=frozenset({7}))
    content = validated(document.as_json(empty))
    assert (content["cpus"], content["watched"][0]["activity"]) == ([], None)


def test_document_without_limit_and_tracefs_is_valid() -> None:
    measured = result({3: without_tracefs({"LOC": 9}, 0)}, {3: QUIET_HISTOGRAM, 4: QUIET_HISTOGRAM})
    content = validated(document.as_json(measured))
    assert content["limit_us"] is None
    assert content["cpus"][0]["activity"]["threads"] is None
    assert content["cpus"][1]["activity"] is None


def test_document_with_a_comparison_is_valid(mixed: Result) -> None:
    before = document.of(replace(mixed, histograms={2: QUIET_HISTOGRAM, 3: QUIET_HISTOGRAM}))
    compared = validated(document.as_json(mixed, before))["compare"]
    assert compared["warnings"] == []
    assert [(one["cpu"], one["verdict"]) for one in compared["cpus"]] == [
        (3, "worse"),
        (2, "equal"),
        (4, "new"),
        (5, "new"),
    ]
    assert compared["cpus"][0]["before"]["longest_us"] == 2.0
    assert compared["cpus"][0]["now"]["longest_us"] == 4012.0
    assert compared["cpus"][2]["before"] is None


def test_document_can_be_read_again(mixed: Result, tmp_path: Path) -> None:
    file = written(tmp_path, document.as_json(mixed, document.of(mixed)))
    assert document.read(file) == document.of(mixed)


def test_only_what_a_comparison_needs_is_read(tmp_path: Path) -> None:
    assert document.read(written(tmp_path, SMALL)) == Document(
        host="node-1",
        kernel="6.1",
        began="2026-03-01T08:00:00Z",
        seconds=60.0,
        limit_us=20.0,
        cpus={
            3: Measured(59.5, 41.0, 9.0, 2, Cause(Kind.IPI, "interrupt CAL of other CPUs")),
        },
    )


def test_words_of_a_file_cannot_send_control_characters(tmp_path: Path) -> None:
    file = written(tmp_path, changed("cpus.0.cause.words", "x\x1b[2J"))
    assert document.read(file).cpus[3].cause.words == "x?[2J"


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("version", 2, "version is 2: it must be 1, the only version that this isolcpus-dp reads"),
        (
            "version",
            True,
            "version is true: it must be 1, the only version that this isolcpus-dp reads",
        ),
        ("version", ..., f"version is missing: {HOW}"),
        ("host", 7, "host is 7: it must be a string"),
        ("seconds", -1, "seconds is -1: it must be a number, 0 or more"),
        ("seconds", 10**400, f"seconds is 1{'0' * 39}...: it must be a number, 0 or more"),
        ("limit_us", "20us", 'limit_us is "20us": it must be a number, 0 or more'),
        ("cpus", {}, "cpus is {}: it must be an array"),
        ("cpus", [5], "cpus[0] is 5: it must be an object"),
        ("cpus.0.cpu", -3, "cpus[0].cpu is -3: it must be a number, 0 or more"),
        ("cpus.0.cpu", 3.5, "cpus[0].cpu is 3.5: it must be an integer"),
        ("cpus.0.longest_us", ..., f"cpus[0].longest_us is missing: {HOW}"),
        ("cpus.0.longest_us", True, "cpus[0].longest_us is true: it must be a number, 0 or more"),
        ("cpus.0.p99_999_us", None, "cpus[0].p99_999_us is null: it must be a number, 0 or more"),
        ("cpus.0.over_limit", -1, "cpus[0].over_limit is -1: it must be a number, 0 or more"),
        ("cpus.0.cause", "tick", 'cpus[0].cause is "tick": it must be an object'),
        (
            "cpus.0.cause.kind",
            "ghost",
            'cpus[0].cause.kind is "ghost": it must be one of thread, work, device, tick, ipi,'
            " softirq, nmi, smi, faults, frequency, hardware, none",
        ),
        ("cpus.0.cause.kind", [1], "cpus[0].cause.kind is [1]: it must be one of thread, "),
    ],
)
def test_wrong_value_is_named_with_its_place(
    tmp_path: Path, path: str, value: object, sentence: str
) -> None:
    file = written(tmp_path, changed(path, value))
    with pytest.raises(DocumentError) as refused:
        document.read(file)
    assert str(refused.value).startswith(f"{file}: {sentence}")


def test_cpu_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, changed("cpus", SMALL["cpus"] * 2))
    with pytest.raises(DocumentError, match=r"cpus\[1\].cpu is 3: it must be a CPU that is not"):
        document.read(file)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is not JSON (line 1, column 1: Expecting value)"),
        ('{"version": 1,\n oops}', "is not JSON (line 2, column 2: "),
        ('{"version": NaN}', "is not JSON (NaN is no number of JSON)"),
        ("[" * 100_000, "is not JSON ("),
    ],
    ids=["empty", "syntax", "NaN", "deep"],
)
def test_file_that_is_not_json_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(DocumentError) as refused:
        document.read(file)
    assert str(refused.value).startswith(f"{file} {sentence}")
    assert str(refused.value).endswith(f"): {HOW}")


def test_array_is_not_a_document(tmp_path: Path) -> None:
    file = written(tmp_path, [])
    with pytest.raises(DocumentError, match="the document is \\[\\]: it must be an object"):
        document.read(file)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "before.json"
    file.write_bytes(b'{"version": "\xff"}')
    with pytest.raises(DocumentError, match="is not JSON"):
        document.read(file)


def test_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"cannot read .*/none: No such file or directory"):
        document.read(tmp_path / "none")
