"""What the kubelet refuses about the topology manager."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isolcpus_dp.report.check.start import table, topology

from .conftest import Settings, Start, refused


def policy(name: str = "best-effort", **options: Any) -> dict[str, Any]:
    named = {option.replace("_", "-"): value for option, value in options.items()}
    return {"topologyManagerPolicy": name, "topologyManagerPolicyOptions": named}


# By rule: settings that the kubelet refuses, and the evidence.
EXAMPLES: dict[str, tuple[Settings, str]] = {
    "an unknown topology manager policy": (
        policy("Best-Effort"),
        'the topology manager has no policy "Best-Effort"',
    ),
    "an unknown topology manager scope": (
        {"topologyManagerScope": "node"},
        'topologyManagerScope is "node"',
    ),
    "--topology-manager-policy-options with a word that is no pair": (
        {"topologyManagerPolicyOptions": "max-allowable-numa-nodes"},
        "--topology-manager-policy-options has 'max-allowable-numa-nodes', which is not NAME=VALUE",
    ),
    "a topology manager option that is not a text": (
        policy(max_allowable_numa_nodes=12),
        "max-allowable-numa-nodes in topologyManagerPolicyOptions is 12 without quotes",
    ),
    "an unknown topology manager option": (
        policy(max_numa_nodes="12"),
        "the topology manager has no option max-numa-nodes",
    ),
    "prefer-closest-numa-nodes that is neither true nor false": (
        policy(prefer_closest_numa_nodes="yes"),
        'prefer-closest-numa-nodes is "yes": it is neither true nor false',
    ),
    "max-allowable-numa-nodes that is not a number of at least 8": (
        policy(max_allowable_numa_nodes="7"),
        'max-allowable-numa-nodes is "7": it is not a number of at least 8',
    ),
    "the feature gate TopologyManagerPolicyOptions set to false": (
        {"--feature-gates": "TopologyManagerPolicyOptions=false"},
        "the feature gate TopologyManagerPolicyOptions is false (locked to true since Kubernetes"
        " 1.32)",
    ),
}
NOT_HERE = {"prefer-closest-numa-nodes without NUMA", "more than 8 NUMA nodes"}


@pytest.mark.parametrize("rule", sorted(EXAMPLES))
def test_each_rule_refuses_its_example(start: Start, rule: str) -> None:
    settings, evidence = EXAMPLES[rule]
    assert refused(start(settings)) == {rule: evidence}


def test_each_rule_has_an_example() -> None:
    assert {rule.refused for rule in topology.RULES} == set(EXAMPLES) | NOT_HERE


@pytest.mark.parametrize(
    "settings",
    [
        {},
        policy("single-numa-node", prefer_closest_numa_nodes="true", max_allowable_numa_nodes="8"),
        # With the policy none, the options are not validated.
        policy("none", max_allowable_numa_nodes="7", anything="x"),
        {"topologyManagerPolicy": "restricted", "topologyManagerScope": "pod"},
        {
            "topologyManagerPolicy": "restricted",
            "topologyManagerPolicyOptions": (
                "max-allowable-numa-nodes=9,prefer-closest-numa-nodes=1"
            ),
        },
    ],
)
def test_valid_settings_are_accepted(start: Start, settings: Settings) -> None:
    assert refused(start(settings)) == {}


@pytest.mark.parametrize(
    ("settings", "nodes", "accepted"),
    [
        (policy("best-effort"), 8, True),
        (policy("best-effort"), 9, False),
        (policy("none"), 34, True),
        (policy("single-numa-node"), 34, False),
        (policy("restricted", max_allowable_numa_nodes="33"), 34, False),
        (policy("restricted", max_allowable_numa_nodes="34"), 34, True),
    ],
)
def test_more_than_eight_numa_nodes_need_an_option(
    start: Start, settings: Settings, nodes: int, accepted: bool
) -> None:
    known = start(settings, memory_only=nodes - 2)
    assert list(refused(known)) == ([] if accepted else ["more than 8 NUMA nodes"])


def test_advice_for_many_nodes_names_the_number(start: Start) -> None:
    [refusal] = table.refusals(start(policy("restricted"), memory_only=10))
    assert refusal.evidence == (
        "the topology manager's policy is restricted, and the host has 12 NUMA nodes: the kubelet"
        " accepts at most 8"
    )
    assert refusal.advice == (
        "Set in the kubelet's configuration: topologyManagerPolicyOptions:"
        ' {max-allowable-numa-nodes: "12"} (Kubernetes 1.31 and newer), or topologyManagerPolicy:'
        " none."
    )


def test_kernel_without_numa_shows_no_distances(start: Start) -> None:
    known = replace(start(policy(prefer_closest_numa_nodes="true")), nodes=frozenset())
    assert list(refused(known)) == ["prefer-closest-numa-nodes without NUMA"]


def test_kernel_without_numa_has_a_node_for_each_package(start: Start) -> None:
    known = replace(start(policy(), shape="9x1x1"), nodes=frozenset())
    assert list(refused(known)) == ["more than 8 NUMA nodes"]


def test_align_by_socket_needs_a_node_for_each_socket(start: Start) -> None:
    known = start(
        {
            "cpuManagerPolicy": "static",
            "reservedSystemCPUs": "0",
            "cpuManagerPolicyOptions": {"align-by-socket": "true"},
            "featureGates": {"CPUManagerPolicyAlphaOptions": True},
        }
    )
    assert refused(known) == {}
    cpus = {cpu: replace(place, node=0) for cpu, place in known.machine.cpus.items()}
    one_node = replace(known, machine=replace(known.machine, cpus=cpus))
    assert refused(one_node) == {
        "align-by-socket with more sockets than NUMA nodes": (
            "align-by-socket is set on 2 sockets and 1 NUMA nodes"
        )
    }
