"""kubelet/outcome: what a worker of the device plugin tells its parent."""

from __future__ import annotations

from isolcpus_dp.host.sockets import Identity
from isolcpus_dp.kubelet.outcome import Outcome, Reporter


def test_parent_learns_the_last_kubelet_and_the_registration() -> None:
    lines: list[str] = []
    reporter = Reporter(lines.append)
    reporter.called(Identity(7, 1_700_000_000_000_000_000))
    reporter.called(Identity(8, 1_700_000_001_000_000_000))
    reporter.registered()
    kubelet = Identity(8, 1_700_000_001_000_000_000)
    assert Outcome.read(lines) == Outcome(kubelet, registered=True, failure="")


def test_kubelet_that_is_called_again_is_told_once() -> None:
    lines: list[str] = []
    reporter = Reporter(lines.append)
    for _ in range(3):
        reporter.called(Identity(7, 5))
    assert lines == ["called 7 5"]


def test_failure_is_a_sentence_or_a_traceback() -> None:
    assert Outcome.read(["failed no descriptor is left"]).failure == "no descriptor is left"
    traceback = ["Traceback (most recent call last):", "NameError: x"]
    assert Outcome.read(traceback).failure == "Traceback (most recent call last):\nNameError: x"


def test_next_worker_learns_which_cpus_are_late() -> None:
    lines: list[str] = []
    reporter = Reporter(lines.append)
    for cpus in ({2}, {2}, {2, 3, 5}):
        reporter.late(frozenset(cpus))
    assert lines == ["late 2", "late 2-3,5"]
    assert Outcome.read(lines) == Outcome(
        None, registered=False, failure="", late=frozenset({2, 3, 5})
    )


def test_next_worker_learns_what_the_pools_have_claimed() -> None:
    lines: list[str] = []
    reporter = Reporter(lines.append)
    reporter.claimed({})
    reporter.claimed({7: "example.com/a", 6: "example.com/b"})
    reporter.claimed({8: "example.com/a"})
    assert lines == [
        "claimed 7 example.com/a",
        "claimed 6 example.com/b",
        "claimed 8 example.com/a",
    ]
    assert Outcome.read(lines) == Outcome(
        None,
        registered=False,
        failure="",
        claimed={7: "example.com/a", 6: "example.com/b", 8: "example.com/a"},
    )
