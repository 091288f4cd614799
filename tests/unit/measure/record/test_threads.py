"""Threads and functions of kernel workers, by name."""

from __future__ import annotations

from isolcpus_dp.measure.record import threads
from isolcpus_dp.measure.record.histogram import Tallies, Tally


def test_threads_have_their_pid_unless_their_name_has_a_slash() -> None:
    assert threads.name("backup", 812) == "backup/812"
    assert threads.name("kworker/3:1", 57) == "kworker/3:1"


def test_names_have_no_control_characters() -> None:
    assert threads.name("a\x1b[2J\n", 812) == "a?[2J?/812"


def test_idle_and_ignored_threads_are_left_out() -> None:
    tallies: Tallies = {
        ("swapper/3", "0"): Tally(1000),
        ("oslat", "4711"): Tally(5),
        ("backup", "812"): Tally(3),
        ("backup", "813"): Tally(2),
    }
    assert threads.ran(tallies, {4711}) == {"backup/812": 3, "backup/813": 2}


def test_thread_with_several_names_has_the_most_frequent() -> None:
    tallies: Tallies = {
        ("sh", "812"): Tally(1),
        ("backup", "812"): Tally(7),
        ("a", "813"): Tally(1),
    }
    assert threads.comms(tallies) == {812: "backup", 813: "a"}


def test_functions_are_counted() -> None:
    assert threads.works({("wb_workfn",): Tally(4)}) == {"wb_workfn": 4}
