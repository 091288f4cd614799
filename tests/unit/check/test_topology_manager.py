"""The check of the kubelet's topology manager."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.report.check import kubelet
from isolcpus_dp.report.check.finding import Verdict
from tests.unit.conftest import MakeUp

from .conftest import MadeUpHost


@pytest.mark.parametrize(
    ("shape", "policy", "verdict"),
    [
        ("1x4x2", "none", Verdict.OK),
        ("2x2x2", "best-effort", Verdict.OK),
        ("2x2x2", "none", Verdict.WARNING),
    ],
)
def test_topology_manager_matters_with_several_numa_nodes(
    make_up: MakeUp, tmp_path: Path, shape: str, policy: str, verdict: Verdict
) -> None:
    made_up = MadeUpHost(make_up(shape, {2, 3, 6, 7}), tmp_path)
    made_up.kubelet("config.yaml", f"topologyManagerPolicy: {policy}")
    assert kubelet.topology_manager(made_up.host()).verdict is verdict


@pytest.mark.parametrize(
    ("nodes", "verdict", "words"),
    [
        (8, Verdict.WARNING, "topologyManagerPolicy: best-effort, or a stricter policy."),
        (
            9,
            Verdict.WARNING,
            "best-effort, or a stricter policy; and topologyManagerPolicyOptions:"
            ' {max-allowable-numa-nodes: "9"} (Kubernetes 1.31 and newer).',
        ),
        (34, Verdict.OK, ""),
    ],
)
def test_topology_manager_counts_nodes_without_cpus(
    make_up: MakeUp, tmp_path: Path, nodes: int, verdict: Verdict, words: str
) -> None:
    made_up = MadeUpHost(make_up("2x2x2", {2, 3, 6, 7}), tmp_path)
    for node in range(2, nodes):
        made_up.sys(f"devices/system/node/node{node}/distance", "10")
    made_up.kubelet("config.yaml", "topologyManagerPolicy: none")
    found = kubelet.topology_manager(made_up.host())
    assert found.verdict is verdict
    assert words in found.advice


def test_topology_policy_on_many_nodes_is_a_problem(made_up: MadeUpHost) -> None:
    for node in range(9):
        made_up.sys(f"devices/system/node/node{node}/distance", "10")
    made_up.kubelet("config.yaml", "topologyManagerPolicy: best-effort")
    found = kubelet.topology_manager(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert "the host has 9 NUMA nodes" in found.evidence
