"""The labels of owners in the picture of a host."""

from __future__ import annotations

import itertools

from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.report.map import model
from isolcpus_dp.report.snapshot import Owner
from isolcpus_dp.simulator.machine import regular

from .snapshots import RESOURCE, look, made_up


def test_labels_of_owners_are_unique_and_differ_from_states() -> None:
    first = list(itertools.islice(model.labels(), 2000))
    assert first[:2] == ["A", "B"]
    assert first[25:28] == ["Z", "a", "b"]
    assert first[49:52] == ["z", "AA", "AB"]
    assert len(set(first)) == 2000
    assert set(".o-x!").isdisjoint(first)


def test_owners_of_devices_that_no_pool_has_are_in_the_legend() -> None:
    host = made_up(regular(1, 2, 2), {1, 3})
    owners = [
        Owner(Allocation("default", "gone", "main", RESOURCE, ("9",)), frozenset({9})),
        Owner(Allocation("default", "odd", "main", RESOURCE, ("x",)), frozenset()),
    ]
    legend = model.marks(look(host, *owners))
    assert [(mark.label, mark.what, sorted(mark.cpus)) for mark in legend] == [
        (".", "housekeeping", [0, 2]),
        ("o", "isolated, free", [1, 3]),
        ("A", "default/odd/main", []),
        ("B", "default/gone/main", [9]),
    ]
    assert sorted(model.mark_by_cpu(host, legend)) == [0, 1, 2, 3]
