"""The axes and bars of a histogram."""

from __future__ import annotations

import pytest

from isolcpus_dp.measure.show import axes
from isolcpus_dp.measure.show.axes import Axes, Bar


def test_axes_end_at_powers_of_ten_above_all_values() -> None:
    found = axes.fitting(300, 60, [1, 20, 1117], [70_000_000, 3])
    assert (found.length_decades, found.count_decades) == (4, 8)
    assert list(found.lengths()) == [1, 10, 100, 1000, 10_000]
    assert list(found.counts()) == [1, 1000, 1_000_000]


def test_bar_of_the_longest_fits_below_a_power_of_ten() -> None:
    found = axes.fitting(300, 60, [100], [1])
    assert found.length_decades == 3
    assert found.x(100.5) < found.x(1000) == 300


@pytest.mark.parametrize("lengths", [[], [1], [0]])
def test_axes_of_short_lengths_have_one_decade(lengths: list[float]) -> None:
    found = axes.fitting(300, 60, lengths, [])
    assert list(found.lengths()) == [1, 10]
    assert list(found.counts()) == [1]


def test_labels_keep_their_distance_on_a_narrow_axis() -> None:
    assert list(Axes(124, 56, 5, 9).lengths()) == [1, 10, 100, 1000, 10_000, 100_000]
    assert list(Axes(124, 56, 6, 9).lengths()) == [1, 100, 10_000, 1_000_000]


def test_axis_begins_at_half_a_microsecond() -> None:
    found = Axes(300, 60, 2, 3)
    assert found.x(0.5) == 0
    assert found.x(0) == 0
    assert found.x(100) == 300
    assert found.x(5000) == 300


def test_single_iteration_is_visible_and_none_is_not() -> None:
    found = Axes(300, 56, 2, 9)
    assert found.y(0) == 0
    assert found.y(1) > 2
    assert found.y(10**9) == found.y(10**10) == 56


def test_bar_is_a_microsecond_wide() -> None:
    found = Axes(300, 60, 2, 3)
    [first, third] = found.bars({1: 1000, 3: 1, 4: 0})
    assert (first.x, first.height) == (0, 60)
    assert first.x + first.width == pytest.approx(found.x(1.5))
    assert third.x == pytest.approx(found.x(2.5))
    assert third.x + third.width == pytest.approx(found.x(3.5))


def test_lengths_share_a_bar_where_a_microsecond_is_too_narrow() -> None:
    found = Axes(300, 60, 4, 3)
    slot = int(found.x(900) / 2) * 2
    assert list(found.bars({900: 7, 901: 3})) == [Bar(slot, 2, found.y(10))]


def test_limit_is_between_the_bars_within_it_and_over_it() -> None:
    found = Axes(600, 60, 3, 3)
    [within, over] = found.bars({20: 5, 21: 5})
    for limit in (20, 20.7):
        assert within.x + within.width == pytest.approx(found.edge(limit))
        assert over.x == pytest.approx(found.edge(limit))


def test_powers_of_ten_are_short() -> None:
    numbers = [1, 10, 100, 1000, 10_000, 100_000, 10**6, 10**9, 10**11]
    words = ["1", "10", "100", "1k", "10k", "100k", "1M", "1G", "100G"]
    assert list(map(axes.short, numbers)) == words
