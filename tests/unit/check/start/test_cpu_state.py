"""What the kubelet refuses about cpu_manager_state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isolcpus_dp.report.check.start import cpu_state, table

from .conftest import Settings, Start, refused

STATIC = {"cpuManagerPolicy": "static", "reservedSystemCPUs": "0,4"}
STRICT = {**STATIC, "cpuManagerPolicyOptions": {"strict-cpu-reservation": "true"}}


def state(policy: str, shared: str, checksum: int = 0, **entries: Any) -> str:
    """A state file; the kubelet accepts one without a checksum."""
    document = {"policyName": policy, "defaultCpuSet": shared, "checksum": checksum}
    return json.dumps({**document, "entries": entries} if entries else document)


# By rule: settings and a file that the kubelet refuses, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str, str]] = {
    "cpu_manager_state that is empty or cannot be parsed": (
        {},
        "",
        "cpu_manager_state is empty, as after a power loss",
    ),
    "cpu_manager_state of another policy": (
        STATIC,
        '{"policyName":"none","defaultCpuSet":"","checksum":1353318690}',
        "the policy is static, but cpu_manager_state has policy none",
    ),
    "cpu_manager_state with a wrong checksum": (
        {},
        '{"policyName":"none","defaultCpuSet":"","checksum":1353318691}',
        "the checksum of cpu_manager_state is wrong",
    ),
    "cpu_manager_state with containers, but without shared CPUs": (
        STATIC,
        state("static", "", uid={"main": "0-7"}),
        "cpu_manager_state has containers, and no CPUs for all others",
    ),
    "cpu_manager_state that shares strictly reserved CPUs": (
        STRICT,
        state("static", "1-7"),
        "strict-cpu-reservation is set, and cpu_manager_state shares the reserved CPU 4",
    ),
    "cpu_manager_state that does not share all reserved CPUs": (
        STATIC,
        state("static", "0-3,5-7", uid={"main": "4"}),
        "cpu_manager_state does not share the reserved CPU 4",
    ),
    "cpu_manager_state that shares CPUs of a container": (
        STATIC,
        state("static", "0-7", uid={"main": "1,5"}),
        "cpu_manager_state both shares and assigns CPU 1,5",
    ),
    "cpu_manager_state with other CPUs than the online ones": (
        STATIC,
        state("static", "0-6"),
        "cpu_manager_state is for CPU 0-6, but the kubelet expects CPU 0-7",
    ),
}


@pytest.mark.parametrize("rule", [rule.refused for rule in cpu_state.RULES])
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, text, evidence = EXAMPLES[rule]
    assert refused(start(settings, cpu_state=text)).get(rule) == evidence


def test_advice_is_to_remove_the_file(start: Start) -> None:
    [refusal] = table.refusals(start({}, cpu_state=""))
    assert refusal.advice == (
        "Drain the node, stop the kubelet, remove /var/lib/kubelet/cpu_manager_state, and start the"
        " kubelet."
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, None),
        ({}, state("none", "")),
        ({}, state("none", "0-99")),  # compared with the policy static only
        (STATIC, None),
        (STATIC, state("static", "")),  # the kubelet fills it
        (STATIC, state("static", "0-7")),
        (STATIC, state("static", "0,3-7", uid={"main": "1-2"})),
        (STATIC, state("static", "0,3-7", container="1-2")),  # before Kubernetes 1.18
        (STRICT, state("static", "1-3,5-7")),
        (STRICT, state("static", "2-3,5-7", uid={"main": "1"})),
        # The kubelet selects the reserved CPUs itself.
        (
            {"cpuManagerPolicy": "static", "systemReserved": {"cpu": "2"}},
            state("static", "0-7"),
        ),
    ],
)
def test_valid_files_are_accepted(start: Start, settings: Settings, text: str | None) -> None:
    assert refused(start(settings, cpu_state=text)) == {}


@pytest.mark.parametrize("text", ["{", "null", "[]", '{"policyName": 1}', '{"entries": "x"}'])
def test_invalid_files_are_refused(start: Start, text: str) -> None:
    assert "cpu_manager_state that is empty or cannot be parsed" in refused(
        start({}, cpu_state=text)
    )


@pytest.mark.parametrize(
    "entries", [{"uid": {"main": 3}}, {"uid": {"main": "3"}, "id": "4"}, {"uid": {"main": "x"}}]
)
def test_invalid_entries_are_refused(start: Start, entries: dict[str, Any]) -> None:
    text = state("none", "", **entries)
    assert list(refused(start({}, cpu_state=text))) == [
        "cpu_manager_state that is empty or cannot be parsed"
    ]


@pytest.mark.parametrize(
    "text",
    [
        '{"policyName":"none","defaultCpuSet":"","checksum":1353318690}',
        '{"policyName":"static","defaultCpuSet":"0-63","checksum":1058907510}',
        '{"policyName":"static","defaultCpuSet":"0,4-27","entries":'
        '{"39b37746-7f5e-4064-b8e1-eebd2bfaa003":{"app":"1-3"}},"checksum":3300516549}',
        '{"policyName":"static","defaultCpuSet":"0,10-15,25-31","entries":'
        '{"777870b5-c64f-42f5-9296-688b9dc212ba":{"container-1":"16-24"},'
        '"fb15e10a-b6a5-4aaa-8fcd-76c1aa64e6fd":{"container-1":"1-9"}},"checksum":318470969}',
    ],
)
def test_checksums_of_real_files_are_correct(text: str) -> None:
    found = cpu_state.parse(text)
    assert found.checksum == found.expected


def test_cpu_that_went_offline_or_came_online_is_refused(start: Start) -> None:
    rule = "cpu_manager_state with other CPUs than the online ones"
    assert refused(start(STATIC, offline=(7,), cpu_state=state("static", "0-7"))) == {
        rule: "cpu_manager_state is for CPU 0-7, but the kubelet expects CPU 0-6"
    }
    assert refused(start(STATIC, offline=(7,), cpu_state=state("static", "0-6"))) == {}


def test_reserved_offline_cpu_is_no_fault_of_the_file(start: Start) -> None:
    settings = {**STATIC, "reservedSystemCPUs": "0,7"}
    assert list(refused(start(settings, offline=(7,), cpu_state=state("static", "0-6")))) == [
        "reservedSystemCPUs with a CPU that is not online"
    ]


def test_cpus_of_pods_are_not_judged(start: Start) -> None:
    document = {**json.loads(state("static", "0-3", 5)), "podEntries": {"uid": {"cpuSet": "4-7"}}}
    known = start({**STATIC, "reservedSystemCPUs": "0"}, cpu_state=json.dumps(document))
    assert refused(known) == {}
