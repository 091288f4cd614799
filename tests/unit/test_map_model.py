"""The labels of owners in the picture of a host."""

from __future__ import annotations

import itertools

from isolcpus_dp.report.map import model


def test_labels_of_owners_are_unique_and_differ_from_states() -> None:
    first = list(itertools.islice(model.labels(), 2000))
    assert first[:2] == ["A", "B"]
    assert first[25:28] == ["Z", "a", "b"]
    assert first[49:52] == ["z", "AA", "AB"]
    assert len(set(first)) == 2000
    assert set(".o-x!").isdisjoint(first)
