"""The measured times of a real kubelet: what is drawn from them, and how they are shown."""

from __future__ import annotations

import random

import pytest

from isolcpus_dp.simulator.timing import ADMISSION, READY_LEAD, Measured


def draws(measured: Measured, seed: int = 1) -> list[float]:
    """Ten thousand draws in milliseconds."""
    source = random.Random(seed)
    return [measured.draw(source) * 1000 for _ in range(10_000)]


def share_below(limit: float, times: list[float]) -> float:
    return sum(time < limit for time in times) / len(times)


def test_idle_kubelet_admits_after_55_to_70_ms() -> None:
    times = draws(ADMISSION["idle"])
    assert min(times) == pytest.approx(55, abs=0.1)
    assert max(times) == pytest.approx(70, abs=0.1)
    assert share_below(69, times) == pytest.approx(0.5, abs=0.02)
    assert share_below(62, times) == pytest.approx(0.25, abs=0.02)


def test_busy_kubelet_admits_after_22_to_68_ms() -> None:
    times = [time for time in draws(ADMISSION["busy"]) if time > 10]
    assert min(times) == pytest.approx(22, abs=0.1)
    assert max(times) == pytest.approx(68, abs=0.1)
    assert share_below(48, times) == pytest.approx(0.5, abs=0.02)


def test_busy_kubelet_admits_after_6_or_2_ms_in_two_of_100_runs() -> None:
    early = [round(time, 6) for time in draws(ADMISSION["busy"]) if time < 22]
    assert set(early) == {2.0, 6.0}
    assert len(early) == pytest.approx(200, abs=50)


def test_kubelet_of_type_notify_is_ready_30_to_80_ms_early() -> None:
    times = draws(READY_LEAD)
    assert min(times) == pytest.approx(30, abs=0.1)
    assert max(times) == pytest.approx(80, abs=0.1)


def test_same_seed_draws_the_same_times() -> None:
    assert draws(ADMISSION["busy"], 7) == draws(ADMISSION["busy"], 7)
    assert draws(ADMISSION["busy"], 7) != draws(ADMISSION["busy"], 8)


def test_measured_time_is_shown_with_its_range_and_single_runs() -> None:
    assert str(ADMISSION["idle"]) == "55 to 70 ms"
    assert str(ADMISSION["busy"]) == "22 to 68 ms, in single runs 6 and 2 ms"
