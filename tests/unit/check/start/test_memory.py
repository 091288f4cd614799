"""What the kubelet refuses about the memory manager."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isolcpus_dp.report.check.start import memory

from .conftest import GIB, Settings, Start, refused


def on_node(node: int, **limits: Any) -> dict[str, Any]:
    return {"numaNode": node, "limits": {name.replace("_", "-"): v for name, v in limits.items()}}


def static(*items: Any, **settings: Any) -> dict[str, Any]:
    return {
        "memoryManagerPolicy": "Static",
        "systemReserved": {"memory": "924Mi"},
        "reservedMemory": list(items),
        **settings,
    }


def state(policy: str, *nodes: int, total: int = 4 * GIB, reserved: int = 0) -> str:
    table = {"memory": {"total": total, "systemReserved": reserved}}
    found = {str(node): {"numberOfAssignments": 0, "memoryMap": table} for node in nodes}
    return json.dumps({"policyName": policy, "machineState": found, "checksum": 1})


HALVES = (on_node(0, memory="512Mi"), on_node(1, memory="512Mi"))
VALID = static(*HALVES)  # 924 MiB, and 100 MiB that evictionHard reserves by default
HALF = 512 * 2**20

# By rule: settings that the kubelet refuses, its state file, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str | None, str]] = {
    "an unknown memory manager policy": (
        {"memoryManagerPolicy": "static"},
        None,
        'the memory manager has no policy "static" on Linux',
    ),
    "reservedMemory that cannot be parsed": (
        static(on_node(0, memory="1 GiB")),
        None,
        'reservedMemory has memory: "1 GiB" on node "0"',
    ),
    "reservedMemory of another resource than memory": (
        {"reservedMemory": [on_node(0, cpu="1")]},
        None,
        "reservedMemory has cpu",
    ),
    "reservedMemory of zero": (
        {"reservedMemory": [on_node(1, memory=0)]},
        None,
        "reservedMemory has no memory on node 1",
    ),
    "reservedMemory that names a node and a resource twice": (
        static(HALVES[0], HALVES[0]),
        None,
        "reservedMemory has memory of node 0 twice",
    ),
    "reservedMemory of a node that does not exist": (
        static(on_node(2, memory="1Gi")),
        None,
        "reservedMemory names NUMA node 2, which the host does not have",
    ),
    "reservedMemory that differs from what is reserved": (
        static(on_node(0, memory="1Gi"), systemReserved={"memory": "1Gi"}),
        None,
        "memory in reservedMemory adds up to 1024Mi, not to 1124Mi",
    ),
    "the policy Static without reserved memory": (
        static(systemReserved={}, evictionHard={}),
        None,
        "the memory manager's policy is Static, and no memory is reserved",
    ),
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
}


@pytest.mark.parametrize("rule", [rule.refused for rule in memory.RULES])
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, text, evidence = EXAMPLES[rule]
    assert refused(start(settings, memory_state=text)) == {rule: evidence}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, None),
        ({}, state("None")),
        ({"memoryManagerPolicy": "None", "reservedMemory": [on_node(7, memory="1Gi")]}, None),
        (VALID, None),
        (VALID, state("Static")),
        (VALID, state("Static", 0, 1, reserved=HALF)),
        ({**VALID, "reservedMemory": "0:memory=512Mi;1:memory=512Mi"}, None),
        ({**VALID, "reservedMemory": "0:memory=512Mi\n1:memory=512Mi"}, None),
        (static(on_node(0, memory="924Mi"), evictionHard={"nodefs.available": "10%"}), None),
        (static(*HALVES, evictionHard={}, mergeDefaultEvictionSettings=True), None),
        (static(*HALVES, evictionHard="memory.available<100Mi,nodefs.available<10%"), None),
        # The kubelet adds the default to the file of --config only, before the drop-ins.
        ({**static(on_node(0, memory="924Mi")), "--config-dir": "/d"}, None),
        ({**static(*HALVES), "--config": "/c", "--config-dir": "/d"}, None),
        (
            {
                **static(on_node(0, memory="1Mi"), evictionHard={"nodefs.available": "1%"}),
                "--config": "/c",
                "--config-dir": "/d",
            },
            None,
        ),
        # A share of all memory is not computed.
        (static(on_node(0, memory="1Gi"), evictionHard={"memory.available": "5%"}), None),
        (
            {
                **static(on_node(0, memory="924Mi")),
                "--experimental-allocatable-ignore-eviction": "",
            },
            None,
        ),
    ],
)
def test_valid_settings_are_accepted(start: Start, settings: Settings, text: str | None) -> None:
    assert refused(start(settings, memory_state=text)) == {}


def test_reserved_huge_pages_are_refused(start: Start) -> None:
    pages = {"numaNode": 0, "limits": {"hugepages-1Gi": "1Gi"}}
    assert refused(start(static(*HALVES, pages))) == {
        "reservedMemory that differs from what is reserved": (
            "hugepages-1Gi in reservedMemory adds up to 1024Mi, not to 0Mi"
        )
    }


def test_state_with_another_reserved_amount_is_refused(start: Start) -> None:
    text = state("Static", 0, 1, reserved=5)
    assert list(refused(start(VALID, memory_state=text))) == [
        "memory_manager_state with other amounts of memory"
    ]


@pytest.mark.parametrize("text", ["0:memory", "memory=1Gi", "x:memory=1Gi", "0:memory=1GiB"])
def test_invalid_flag_is_refused(start: Start, text: str) -> None:
    assert list(refused(start({**static(), "reservedMemory": text}))) == [
        "reservedMemory that cannot be parsed"
    ]
