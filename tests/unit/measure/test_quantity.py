"""Durations and lengths on the command line."""

from __future__ import annotations

import pytest

from isolcpus_dp.measure import quantity
from isolcpus_dp.measure.quantity import QuantityError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60", 60.0),
        ("2.5", 2.5),
        ("60s", 60.0),
        ("500ms", 0.5),
        ("100ms", 0.1),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("168h", 604800.0),
        (" 7s ", 7.0),
    ],
)
def test_duration_is_a_number_with_or_without_a_unit(text: str, seconds: float) -> None:
    assert quantity.seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "0", "-1s", "99ms", "169h", "1d", "1 s", "1e3", "nan", "inf", "5S", "1s1s"]
)
def test_other_duration_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        quantity.seconds(text)
    assert str(caught.value) == (
        f"'{text}' is not a duration from 100ms to 168h with the unit ms, s, m or h"
    )


@pytest.mark.parametrize(
    ("text", "length"), [("20us", 20.0), ("0.5ms", 500.0), ("1.5us", 1.5), ("1ms", 1000.0)]
)
def test_length_has_a_unit(text: str, length: float) -> None:
    assert quantity.microseconds(text) == length


@pytest.mark.parametrize("text", ["20", "0us", "0.5us", "2ms", "1s", "us", "20 us", "-20us"])
def test_other_length_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(QuantityError) as caught:
        quantity.microseconds(text)
    assert str(caught.value) == (f"'{text}' is not a length from 1us to 1ms with the unit us or ms")
