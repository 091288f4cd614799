"""Differences of the tables of interrupts and softirqs."""

from __future__ import annotations

import pytest

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.record import counters

from .conftest import MadeUpKernel


def test_only_lines_that_grew_on_the_cpu_remain() -> None:
    before = {"LOC": {2: 10, 3: 10}, "24": {2: 1, 3: 5}}
    after = {"LOC": {2: 10, 3: 14}, "24": {2: 9, 3: 5}}
    assert counters.grown(before, after, 3) == {"LOC": 4}


def test_interrupts_requested_meanwhile_begin_at_zero() -> None:
    assert counters.grown({"LOC": {3: 1}}, {"LOC": {3: 1}, "25": {3: 2}}, 3) == {"25": 2}


def test_counts_wrap_at_32_bits() -> None:
    assert counters.grown({"LOC": {3: 4294967290}}, {"LOC": {3: 5}}, 3) == {"LOC": 11}


def test_cpus_that_were_offline_have_no_counts() -> None:
    assert counters.grown({"LOC": {2: 5, 3: 5}}, {"LOC": {2: 9}}, 3) == {}
    assert counters.grown({"LOC": {2: 5}}, {"LOC": {2: 5, 3: 900}}, 3) == {}


def test_missing_table_is_an_error_with_its_path(kernel: MadeUpKernel) -> None:
    with pytest.raises(Unseen, match="proc/softirqs has no counts"):
        counters.read(kernel.roots.proc, "softirqs")
