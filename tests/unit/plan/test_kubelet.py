"""The kubelet's drop-in: by its version, its settings, and how it is started."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from isolcpus_dp.plan import kubelet, wish
from isolcpus_dp.plan.kubelet import Kubelet
from isolcpus_dp.plan.part import Goal, Part
from isolcpus_dp.report.check.start import change, table
from isolcpus_dp.report.check.start.facts import Facts
from isolcpus_dp.simulator.machine import described, parse_shape

from .cases import DEBIAN, EL


def goal_of(shape: str, isolate: str | None = None) -> Goal:
    return wish.apply(described(parse_shape(shape)), wish.Wish(isolate=isolate))[0]


def facts_of(goal: Goal, settings: Mapping[str, Any], cpu_state: str | None = None) -> Facts:
    nodes = frozenset(cpu.node for cpu in goal.machine.cpus.values() if cpu.node is not None)
    return Facts(settings, goal.machine, nodes, cpu_state=cpu_state)


def document(part: Part) -> dict[str, Any]:
    [file] = part.files
    found: dict[str, Any] = yaml.safe_load(file.text)
    return {name: value for name, value in found.items() if name not in ("apiVersion", "kind")}


GOAL = goal_of("2x4x2", "2-3,6-7,10-11,14-15")


def planned(settings: Mapping[str, Any], **known: Any) -> Part:
    return kubelet.part(GOAL, DEBIAN, Kubelet(facts_of(GOAL, settings), **known))


def test_first_core_is_reserved_if_pods_have_another() -> None:
    assert document(planned({})) == {
        "reservedSystemCPUs": "0,2-3,6-8,10-11,14-15",
        "cpuManagerPolicy": "static",
        "cpuManagerPolicyOptions": {"strict-cpu-reservation": "true"},
        "topologyManagerPolicy": "best-effort",
    }


@pytest.mark.parametrize(
    ("settings", "reserved"),
    [
        ({"reservedSystemCPUs": "1"}, "1-3,6-7,10-11,14-15"),
        ({"reservedSystemCPUs": "0-1,99"}, "0-3,6-7,10-11,14-15"),
        ({"reservedSystemCPUs": "x"}, "0,2-3,6-8,10-11,14-15"),
    ],
)
def test_cpus_that_are_reserved_now_stay_so(settings: dict[str, Any], reserved: str) -> None:
    assert document(planned(settings))["reservedSystemCPUs"] == reserved


def test_only_core_that_stays_is_left_to_pods() -> None:
    goal = goal_of("1x4x1")
    part = kubelet.part(goal, DEBIAN, Kubelet(facts_of(goal, {})))
    assert document(part)["reservedSystemCPUs"] == "1-3"


def test_stricter_topology_policy_is_unchanged() -> None:
    found = document(planned({"topologyManagerPolicy": "single-numa-node"}))
    assert "topologyManagerPolicy" not in found


def test_cgroups_that_exclude_reserved_cpus_are_removed() -> None:
    found = planned({"systemReservedCgroup": "/system.slice", "enforceNodeAllocatable": ["pods"]})
    assert "systemReservedCgroup: null\n" in found.files[0].text
    assert document(found)["systemReservedCgroup"] is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((1, 33), {"strict-cpu-reservation": "true"}),
        ((1, 32), None),
        (None, {"strict-cpu-reservation": "true"}),
    ],
)
def test_option_is_for_kubelets_that_have_it(
    version: tuple[int, int] | None, expected: object
) -> None:
    assert document(planned({}, version=version)).get("cpuManagerPolicyOptions") == expected


@pytest.mark.parametrize(("version", "policy"), [((1, 30), "none"), ((1, 31), "best-effort")])
def test_many_nodes_need_a_kubelet_with_the_option(version: tuple[int, int], policy: str) -> None:
    goal = goal_of("9x2x1")
    part = kubelet.part(goal, DEBIAN, Kubelet(facts_of(goal, {}), version=version))
    found = document(part)
    assert found["topologyManagerPolicy"] == policy
    assert ("topologyManagerPolicyOptions" in found) == (policy == "best-effort")


SETTINGS: list[dict[str, Any]] = [
    {},
    {"reservedSystemCPUs": "0-3,6"},
    {"cpuManagerPolicy": "static", "systemReserved": {"cpu": "1"}},
    {"cpuManagerPolicy": "static", "cpuManagerPolicyOptions": {"full-pcpus-only": "true"}},
    {"topologyManagerPolicy": "restricted"},
    {"topologyManagerPolicy": "none", "topologyManagerScope": "pod"},
    {"kubeReservedCgroup": "/kube", "enforceNodeAllocatable": ["pods", "kube-reserved"]},
    {"cpuManagerPolicyOptions": {"no-such-option": "true"}},
    {"topologyManagerPolicyOptions": {"no-such-option": "true"}},
]


@pytest.mark.parametrize("shape", ["1x4x1", "2x4x2", "9x2x2", "20x2x1"])
def test_no_settings_lead_to_a_refusal(shape: str) -> None:
    goal = goal_of(shape)
    versions = [None, (1, 29), (1, 31), (1, 36)]
    for settings, version in itertools.product(SETTINGS, versions):
        known = facts_of(goal, settings)
        part = kubelet.part(goal, DEBIAN, Kubelet(known, version=version))
        after = change.follow(
            replace(known, machine=replace(goal.machine, isolated=goal.isolated)),
            change.Change(document(part)),
        )
        assert [refusal.evidence for refusal in table.refusals(after)] == []
        assert goal.isolated <= after.reserved


@pytest.mark.parametrize("settings", SETTINGS)
def test_plan_is_the_same_after_the_reboot(settings: dict[str, Any]) -> None:
    rebooted = replace(GOAL.machine, isolated=GOAL.isolated)
    after = Kubelet(replace(facts_of(GOAL, settings), machine=rebooted))
    goal = replace(GOAL, machine=rebooted)
    assert kubelet.part(goal, DEBIAN, after).files == planned(settings).files


def test_options_that_are_refused_are_removed() -> None:
    """The kubelet merges the options of the file with those of its configuration."""
    found = document(planned(SETTINGS[-2]))
    assert found["cpuManagerPolicyOptions"] == {
        "strict-cpu-reservation": "true",
        "no-such-option": None,
    }
    found = document(planned(SETTINGS[-1]))
    assert found["topologyManagerPolicyOptions"] == {"no-such-option": None}


def test_state_file_of_another_policy_must_go() -> None:
    text = '{"policyName":"none","defaultCpuSet":"","checksum":1353318690}'
    known = Kubelet(facts_of(GOAL, {}, text), unit="k3s")
    assert kubelet.part(GOAL, DEBIAN, known).commands == (
        "systemctl stop k3s",
        "rm -f /var/lib/kubelet/cpu_manager_state",
    )
    assert planned({}).commands == ()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (
            {"flags": {}, "version": (1, 33)},
            "Set KUBELET_EXTRA_ARGS=--config-dir=/etc/kubernetes/kubelet.conf.d in"
            " /etc/default/kubelet (kubeadm)",
        ),
        (
            {"unit": "k3s-agent", "version": (1, 33)},
            "Add to /etc/rancher/k3s/config.yaml: kubelet-arg:"
            ' ["config-dir=/etc/kubernetes/kubelet.conf.d"]',
        ),
        (
            {"unit": "snap.microk8s.daemon-kubelite", "version": (1, 33)},
            "Add the line --config-dir=/etc/kubernetes/kubelet.conf.d to"
            " /var/snap/microk8s/current/args/kubelet",
        ),
        (
            {"version": (1, 29)},
            "This kubelet has no --config-dir (Kubernetes 1.30 and newer): copy the settings",
        ),
        ({"flags": {"reserved-cpus": "0"}}, "The kubelet's command line has --reserved-cpus"),
    ],
)
def test_notes_say_how_the_file_takes_effect(known: dict[str, Any], words: str) -> None:
    assert [note for note in planned({}, **known).notes if note.startswith(words)]


def test_drop_in_is_in_the_directory_that_the_kubelet_reads() -> None:
    found = planned({}, flags={"config-dir": "/etc/own.d"}, version=(1, 33))
    assert [str(file.path) for file in found.files] == ["/etc/own.d/90-isolcpus-dp.conf"]
    assert found.notes == ()


def test_flag_on_el_is_set_in_sysconfig() -> None:
    notes = kubelet.part(GOAL, EL, Kubelet(facts_of(GOAL, {}))).notes
    assert any(" in /etc/sysconfig/kubelet " in note for note in notes)
