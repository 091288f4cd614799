"""What the kubelet refuses about memory_manager_state."""

from __future__ import annotations

import json

import pytest

from isolcpus_dp.report.check.start import memory_state

from .conftest import GIB, Settings, Start, refused
from .test_memory import VALID

HALF = 512 * 2**20  # of memory is reserved on each of the two nodes
PAGES = "hugepages-1Gi"


def state(
    policy: str, *nodes: int, total: int = 4 * GIB, reserved: int = 0, pages: int | None = None
) -> str:
    table = {"memory": {"total": total, "systemReserved": reserved}}
    if pages is not None:
        table[PAGES] = {"total": pages, "systemReserved": 0}
    found = {str(node): {"numberOfAssignments": 0, "memoryMap": table} for node in nodes}
    return json.dumps({"policyName": policy, "machineState": found, "checksum": 1})


# By rule: settings and a state file that the kubelet refuses, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str, str]] = {
    "memory_manager_state that is empty or cannot be parsed": (
        {},
        "",
        "memory_manager_state is empty, as after a power loss",
    ),
    "memory_manager_state of another policy": (
        VALID,
        state("None"),
        "the policy is Static, but memory_manager_state has policy None",
    ),
    "memory_manager_state with other NUMA nodes": (
        VALID,
        state("Static", 0, reserved=HALF),
        "memory_manager_state is for NUMA node 0, but the host has 0-1",
    ),
    "memory_manager_state with other amounts of memory": (
        VALID,
        state("Static", 0, 1, total=3 * GIB, reserved=HALF),
        "memory_manager_state has 3221225472 bytes on node 0, but it has 4294967296, 3221225472"
        " bytes on node 1, but it has 4294967296",
    ),
    "memory_manager_state with other huge pages": (
        VALID,
        state("Static", 0, 1, reserved=HALF, pages=2 * GIB),
        "memory_manager_state has another amount of hugepages-1Gi on node 0 than the host, another"
        " amount of hugepages-1Gi on node 1 than the host",
    ),
}


@pytest.mark.parametrize("rule", [rule.refused for rule in memory_state.RULES])
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, text, evidence = EXAMPLES[rule]
    known = start(settings, memory_state=text, huge_pages=GIB if PAGES in text else None)
    assert refused(known) == {rule: evidence}


@pytest.mark.parametrize(
    ("settings", "text", "pages"),
    [
        ({}, state("None"), GIB),
        (VALID, None, GIB),
        (VALID, state("Static"), GIB),
        (VALID, state("Static", 0, 1, reserved=HALF), None),
        (VALID, state("Static", 0, 1, reserved=HALF, pages=GIB), GIB),
        (VALID, state("Static", 0, 1, reserved=HALF, pages=0), 0),
    ],
)
def test_valid_state_is_accepted(
    start: Start, settings: Settings, text: str | None, pages: int | None
) -> None:
    assert refused(start(settings, memory_state=text, huge_pages=pages)) == {}


@pytest.mark.parametrize("pages", [0, GIB])
def test_state_without_a_size_of_huge_pages_is_refused(start: Start, pages: int) -> None:
    text = state("Static", 0, 1, reserved=HALF)
    assert list(refused(start(VALID, memory_state=text, huge_pages=pages))) == [
        "memory_manager_state with other huge pages"
    ]


def test_huge_pages_of_another_type_than_a_number_are_refused(start: Start) -> None:
    text = state("Static", 0, 1, reserved=HALF, pages=0).replace('{"total": 0', '{"total": [0]')
    assert refused(start(VALID, memory_state=text, huge_pages=0)) == {
        "memory_manager_state with other huge pages": (
            "memory_manager_state has another amount of hugepages-1Gi on node 0 than the host,"
            " another amount of hugepages-1Gi on node 1 than the host"
        )
    }


def test_node_of_more_digits_than_python_reads_is_no_node(start: Start) -> None:
    found: dict[str, dict[str, object]] = {"9" * 5000: {}, "0": {}, "1": {}}
    text = json.dumps({"policyName": "Static", "machineState": found})
    assert refused(start(VALID, memory_state=text)) == {}


def test_state_with_another_reserved_amount_is_refused(start: Start) -> None:
    text = state("Static", 0, 1, reserved=5)
    assert list(refused(start(VALID, memory_state=text))) == [
        "memory_manager_state with other amounts of memory"
    ]
