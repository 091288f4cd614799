"""How a storm is drawn, and how growth is found in its samples."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.testbed.storm.holdings import Holdings, Memory
from tests.testbed.storm.plan import KUBELET, draw
from tests.testbed.storm.storm import Record, Sample, Subject, growth, not_met


def sampled(anonymous: float, descriptors: int = 5) -> dict[str, Sample]:
    """A sample of one process, the daemon."""
    return {"daemon": Sample(Holdings(1, descriptors, 0), Memory(20.0, anonymous))}


def test_same_seed_draws_the_same_restarts() -> None:
    first, second = (draw(random.Random(seed), KUBELET, 3, 10) for seed in (7, 7))
    assert first == second
    assert first != draw(random.Random(8), KUBELET, 3, 10)


def test_last_process_of_a_round_stays_and_every_other_round_is_busy() -> None:
    rounds = draw(random.Random(7), KUBELET, 4, 10, busy_loops=2)
    assert [one.busy_loops for one in rounds] == [0, 2, 0, 2]
    for one in rounds:
        assert [restart.moment == "" for restart in one.restarts] == [False] * 9 + [True]


def test_all_moments_and_both_signals_are_drawn() -> None:
    [one] = draw(random.Random(7), KUBELET, 1, 200)
    assert {restart.moment for restart in one.restarts} == {*KUBELET, ""}
    assert {restart.number.name for restart in one.restarts} == {"SIGTERM", "SIGKILL"}
    assert all(0 <= restart.apart <= 2 for restart in one.restarts)


def test_descriptor_that_is_held_from_now_on_is_growth() -> None:
    assert growth([sampled(12.0, descriptors=count) for count in (5, 5, 6, 6, 6, 6)], 0.5) == [
        "the daemon holds at least 6 descriptors; at first at most 5"
    ]


def test_descriptor_that_is_held_at_times_is_no_growth() -> None:
    varying = [sampled(12.0, descriptors=count) for count in (5, 6, 6, 5, 6, 6)]
    assert growth(varying, 0.5) == []


def test_worker_may_have_two_threads_more_but_not_three() -> None:
    def workers(*threads: int) -> list[dict[str, Sample]]:
        memory = Memory(20.0, 12.0)
        return [{"worker": Sample(Holdings(count, 20, 6), memory)} for count in threads]

    assert growth(workers(8, 9, 10), 0.5) == []
    assert growth(workers(8, 9, 11), 0.5) == [
        "the worker holds at least 11 threads; at first at most 8"
    ]


def test_garbage_is_no_growth_but_a_leak_is() -> None:
    garbage = [sampled(size) for size in (12.0, 12.3, 12.6, 12.1, 12.4, 12.7)]
    assert growth(garbage, 0.5) == []
    leak = [sampled(size) for size in (12.0, 12.2, 12.4, 12.6, 12.8, 13.0)]
    assert growth(leak, 0.5) == ["the anonymous memory of the daemon grew by 0.80 MiB"]


def test_storm_that_never_met_the_daemon_forking_says_so() -> None:
    subject = Subject(
        "kubelet",
        (),
        Path(),
        KUBELET,
        lambda _: {},
        lambda *_: "",
        states=("forking", "waiting"),
        calls=("Register", "ListAndWatch", "Allocate"),
    )
    met = Counter({("SIGTERM", "Register"): 3, ("SIGKILL", "Allocate"): 1})
    assert not_met(subject, Record(starts=Counter({"waiting": 9}), ends=met)) == [
        "no kubelet's socket was created while the daemon was forking",
        "no kubelet ended in the middle of ListAndWatch",
    ]
    met["SIGTERM", "ListAndWatch"] = 1
    assert not_met(subject, Record(starts=Counter({"waiting": 9, "forking": 1}), ends=met)) == []
