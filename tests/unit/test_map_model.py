"""What the picture of a host shows, however it is drawn."""

from __future__ import annotations

import itertools

from isolcpus_dp.report.map import model


def test_no_two_owners_have_the_same_label_and_none_that_of_a_state() -> None:
    first = list(itertools.islice(model.labels(), 2000))
    assert first[:2] == ["A", "B"]
    assert first[25:28] == ["Z", "a", "b"]
    assert first[49:52] == ["z", "AA", "AB"]
    assert len(set(first)) == 2000
    assert set(".o-x!").isdisjoint(first)
