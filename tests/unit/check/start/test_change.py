"""What `check` advises never stops the kubelet."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from isolcpus_dp.report.check.start import advised, change, table

from .conftest import Settings, Start, refused
from .test_cpu_state import state

STATIC = {"cpuManagerPolicy": "static", "reservedSystemCPUs": "0"}
ISOLATED = frozenset({2, 3, 6, 7})

MACHINES: list[dict[str, Any]] = [
    {},
    {"offline": (7,)},
    {"offline": (2, 3, 6, 7)},  # all isolated CPUs
    {"offline": (4, 5, 6, 7)},  # as with nosmt
    {"isolated": ISOLATED | {8, 9}},  # on the kernel command line, but not present
    {"isolated": frozenset()},
    {"isolated": frozenset(range(8))},
    {"memory_only": 7},
    {"memory_only": 32},
    {"shape": "12x1x2"},
    {"shape": "12x1x2", "memory_only": 12, "offline": (23,)},
]
SETTINGS: list[Settings] = [
    {},
    {"reservedSystemCPUs": ""},
    {"reservedSystemCPUs": "0,2-3,6"},
    {"reservedSystemCPUs": "0,2-3,6-7"},
    {"reservedSystemCPUs": "6-7"},
    {"reservedSystemCPUs": "0-999"},
    {"reservedSystemCPUs": "0, 2"},
    {"reservedSystemCPUs": 7},
    {"systemReserved": {"cpu": "1"}, "systemReservedCgroup": "/system.slice"},
    {
        "enforceNodeAllocatable": ["pods", "kube-reserved", "system-reserved"],
        "kubeReservedCgroup": "/kube",
        "systemReservedCgroup": "/system",
    },
    {"enforceNodeAllocatable": "kube-reserved-compressible", "kubeReservedCgroup": "/kube"},
    STATIC,
    {**STATIC, "cpuManagerPolicyOptions": {"strict-cpu-reservation": "true"}},
    {"cpuManagerPolicy": "static"},
    {"topologyManagerPolicyOptions": {"max-allowable-numa-nodes": "4", "other": "x"}},
    {"topologyManagerPolicyOptions": {"prefer-closest-numa-nodes": "true"}},
]
STATES = [
    None,
    "",
    state("none", ""),
    state("static", "0-7"),
    state("static", "0-1,4-7", uid={"main": "2-3"}),
    state("static", "1-7"),
]


@pytest.mark.parametrize("machine", MACHINES)
def test_reserving_as_advised_is_not_refused(start: Start, machine: dict[str, Any]) -> None:
    made = start({}, **machine)
    for settings, text in itertools.product(SETTINGS, STATES):
        known = replace(made, settings=settings, cpu_state=text)
        after = change.follow(known, change.reserve(known))
        assert refused(after) == {}
        assert after.reserved <= after.online
        assert after.reserved >= known.machine.isolated & known.online


@pytest.mark.parametrize("settings", [{}, *SETTINGS[-2:]])
@pytest.mark.parametrize("machine", MACHINES)
def test_aligning_as_advised_is_not_refused(
    start: Start, settings: Settings, machine: dict[str, Any]
) -> None:
    known = start(settings, **machine)
    assert refused(change.follow(known, change.align(known))) == {}


@pytest.mark.parametrize("machine", MACHINES)
def test_strict_reservation_as_advised_is_not_refused(
    start: Start, machine: dict[str, Any]
) -> None:
    options = {"full-pcpus-only": "true"}
    made = start({**STATIC, "cpuManagerPolicyOptions": options}, **machine)
    for text in STATES:
        known = replace(made, cpu_state=text)
        after = change.follow(known, change.strict(known))
        assert refused(after) == {}
        assert after.settings["cpuManagerPolicyOptions"] == {
            "full-pcpus-only": "true",
            "strict-cpu-reservation": "true",
        }


def test_offline_cpus_are_not_reserved(start: Start) -> None:
    known = start({}, offline=(1, 7))
    assert advised.reserved_cpus(known.machine, frozenset({0, 1})) == {0, 2, 3, 6}


def test_first_online_cpu_is_reserved_if_no_other_is(start: Start) -> None:
    known = start({}, offline=(2, 3, 6, 7))
    assert advised.reserved_cpus(known.machine, frozenset({7})) == {0}


@pytest.mark.parametrize(
    ("nodes", "policy", "option"),
    [
        (1, "best-effort", None),
        (8, "best-effort", None),
        (9, "best-effort", 9),
        (16, "best-effort", 16),
        (17, "none", None),
        (34, "none", None),
    ],
)
def test_topology_policy_depends_on_the_nodes(nodes: int, policy: str, option: int | None) -> None:
    assert advised.topology_policy(nodes) == (policy, option)


def test_no_policy_that_an_option_excludes_is_advised(start: Start) -> None:
    options = {"align-by-socket": "true"}
    assert change.align_advice(start({"cpuManagerPolicyOptions": options})) == (
        "Set in the kubelet's configuration: topologyManagerPolicy: best-effort, or restricted."
    )


def test_advice_removes_what_excludes_reserved_cpus(start: Start) -> None:
    known = start(
        {
            "reservedSystemCPUs": "0",
            "enforceNodeAllocatable": ["pods", "system-reserved"],
            "systemReservedCgroup": "/system.slice",
        }
    )
    assert change.reserve_advice(known) == (
        'Set in the kubelet\'s configuration: reservedSystemCPUs: "0,2-3,6-7",'
        " enforceNodeAllocatable: [pods]; remove systemReservedCgroup."
    )


def test_advice_removes_a_state_file_that_would_be_refused(start: Start) -> None:
    text = state("static", "0-1,4-7", uid={"main": "2-3"})
    assert change.reserve_advice(start(STATIC, cpu_state=text)) == (
        'Set in the kubelet\'s configuration: reservedSystemCPUs: "0,2-3,6-7". Drain the node, stop'
        " the kubelet, remove /var/lib/kubelet/cpu_manager_state, and start the kubelet."
    )
    shared = start(STATIC, cpu_state=state("static", "0-7"))
    assert "Drain" not in change.reserve_advice(shared)


def test_no_value_leads_to_an_exception(start: Start) -> None:
    known = start({})
    keys = (
        "reservedSystemCPUs systemReserved kubeReserved enforceNodeAllocatable evictionHard"
        " featureGates cpuManagerPolicy cpuManagerPolicyOptions topologyManagerPolicy"
        " topologyManagerPolicyOptions topologyManagerScope memoryManagerPolicy reservedMemory"
    )
    for value in (None, "", "x", "a=b", 1, -1.5, True, [], [1], [None], {}, {"a": None}, {1: [2]}):
        after = change.follow(known, change.Change(dict.fromkeys(keys.split(), value)))
        table.refusals(after)
