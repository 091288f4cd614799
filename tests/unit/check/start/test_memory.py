"""What the kubelet refuses about the memory manager."""

from __future__ import annotations

from typing import Any

import pytest

from isolcpus_dp.report.check.start import memory

from .conftest import Settings, Start, refused


def on_node(node: int, **limits: Any) -> dict[str, Any]:
    return {"numaNode": node, "limits": {name.replace("_", "-"): v for name, v in limits.items()}}


def static(*items: Any, **settings: Any) -> dict[str, Any]:
    return {
        "memoryManagerPolicy": "Static",
        "systemReserved": {"memory": "1Gi"},
        "reservedMemory": list(items),
        **settings,
    }


HALVES = (on_node(0, memory="512Mi"), on_node(1, memory="512Mi"))
VALID = static(*HALVES)

# By rule: settings that the kubelet refuses, its state file, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str]] = {
    "evictionHard with a value that is not a text": (
        {"evictionHard": {"nodefs.available": 5}},
        "nodefs.available in evictionHard is 5 without quotes",
    ),
    "memory.available in evictionHard that is not an amount of memory": (
        {"evictionHard": {"memory.available": "101%"}},
        'memory.available in evictionHard is "101%"',
    ),
    "more memory reserved than the host has": (
        {"systemReserved": {"memory": "8Gi"}, "evictionHard": {"memory.available": "1Mi"}},
        "more memory is reserved than the host has",
    ),
    "an unknown memory manager policy": (
        {"memoryManagerPolicy": "static"},
        'the memory manager has no policy "static" on Linux',
    ),
    "reservedMemory that cannot be parsed": (
        static(on_node(0, memory="1 GiB")),
        'reservedMemory has memory: "1 GiB" on node "0"',
    ),
    "reservedMemory of another resource than memory": (
        {"reservedMemory": [on_node(0, cpu="1")]},
        "reservedMemory has cpu",
    ),
    "reservedMemory of zero": (
        {"reservedMemory": [on_node(1, memory=0)]},
        "reservedMemory has no memory on node 1",
    ),
    "reservedMemory that names a node and a resource twice": (
        static(HALVES[0], HALVES[0]),
        "reservedMemory has memory of node 0 twice",
    ),
    "reservedMemory of a node that does not exist": (
        static(on_node(2, memory="1Gi")),
        "reservedMemory names NUMA node 2, which the host does not have",
    ),
    "reservedMemory that differs from what is reserved": (
        static(on_node(0, memory="1Gi"), evictionHard={"memory.available": "100Mi"}),
        "memory in reservedMemory adds up to 1024Mi, not to 1124Mi",
    ),
    "the policy Static without reserved memory": (
        static(systemReserved={}),
        "the memory manager's policy is Static, and no memory is reserved",
    ),
}


@pytest.mark.parametrize("rule", [rule.refused for rule in memory.RULES])
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, evidence = EXAMPLES[rule]
    assert refused(start(settings)) == {rule: evidence}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"memoryManagerPolicy": "None", "reservedMemory": [on_node(7, memory="1Gi")]},
        {"reservedMemory": [{"numaNode": 0}, on_node(1, memory=" 1Gi ")]},
        VALID,
        {**VALID, "reservedMemory": "0:memory=512Mi;1:memory=512Mi"},
        {**VALID, "reservedMemory": "0:memory=512Mi\n1:memory=512Mi"},
        static(*HALVES, evictionHard={"nodefs.available": "10%"}),
        static(*HALVES, evictionHard={"memory.available": "0%"}),
        static(on_node(0, memory="1124Mi"), evictionHard={"memory.available": "100Mi"}),
        static(
            on_node(0, memory="1124Mi"),
            evictionHard="memory.available<100Mi,nodefs.available<10%",
        ),
        # The kubelet computes 5 % of 8 GiB with 32 bits.
        static(on_node(0, memory="1503238560"), evictionHard={"memory.available": "5%"}),
        static(
            *HALVES,
            evictionHard={"memory.available": "100Mi"},
            **{"--experimental-allocatable-ignore-eviction": ""},
        ),
    ],
)
def test_valid_settings_are_accepted(start: Start, settings: Settings) -> None:
    assert refused(start(settings)) == {}


@pytest.mark.parametrize("text", ["", "0", "-1", "abc", "-5%", "5%%"])
def test_invalid_eviction_threshold_is_refused(start: Start, text: str) -> None:
    assert refused(start({"evictionHard": {"memory.available": text}})) == {
        "memory.available in evictionHard that is not an amount of memory": (
            f'memory.available in evictionHard is "{text}"'
        )
    }


def test_reserved_huge_pages_are_refused(start: Start) -> None:
    pages = {"numaNode": 0, "limits": {"hugepages-1Gi": "1Gi"}}
    assert refused(start(static(*HALVES, pages))) == {
        "reservedMemory that differs from what is reserved": (
            "hugepages-1Gi in reservedMemory adds up to 1024Mi, not to 0Mi"
        )
    }


@pytest.mark.parametrize(
    "text", ["0:memory", "memory=1Gi", "x:memory=1Gi", "0:memory=1GiB", f"{'9' * 5000}:memory=1Gi"]
)
def test_invalid_flag_is_refused(start: Start, text: str) -> None:
    assert list(refused(start({**static(), "reservedMemory": text}))) == [
        "reservedMemory that cannot be parsed"
    ]
