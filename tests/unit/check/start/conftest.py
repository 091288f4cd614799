"""Facts about a kubelet, without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.report.check.start import facts, table
from isolcpus_dp.report.check.start.facts import Facts
from isolcpus_dp.simulator.machine import MadeUpMachine, parse_shape

Settings = Mapping[str, Any]
Start = Callable[..., Facts]

GIB = 2**30


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Makes facts: two NUMA nodes with two cores of two threads; cores 2,6 and 3,7 are isolated."""

    def make(
        settings: Settings,
        *,
        shape: str = "2x2x2",
        isolated: frozenset[int] = frozenset({2, 3, 6, 7}),
        offline: tuple[int, ...] = (),
        memory_only: int = 0,
        cpu_state: str | None = None,
        memory_state: str | None = None,
        huge_pages: int | None = None,
    ) -> Facts:
        root = tmp_path_factory.mktemp("sys")
        tree = MadeUpMachine(root, parse_shape(shape), isolated)
        tree.set_offline(*offline)
        nodes = facts.numa_nodes(tree.root)
        nodes |= frozenset(range(len(nodes), len(nodes) + memory_only))
        return Facts(
            settings=settings,
            machine=machine.read(tree.root),
            nodes=nodes,
            memory=8 * GIB,
            node_memory=dict.fromkeys(nodes, 4 * GIB),
            # Of 1 GiB on each node; not known by default.
            huge_pages={}
            if huge_pages is None
            else {node: {"hugepages-1Gi": huge_pages} for node in nodes},
            cpu_state=cpu_state,
            memory_state=memory_state,
            directory=Path("/var/lib/kubelet"),
        )

    return make


def refused(known: Facts) -> dict[str, str]:
    """By the rule's general text: the evidence of each refusal."""
    return {refusal.rule.refused: refusal.evidence for refusal in table.refusals(known)}
