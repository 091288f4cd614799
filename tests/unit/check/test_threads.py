"""Kernel work that can be moved off isolated CPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.report.check import files, threads
from isolcpus_dp.report.check.finding import Verdict
from tests.unit.conftest import MakeUp

from .conftest import BOUND, MadeUpHost

MASK = "devices/virtual/workqueue/cpumask"


def test_unbound_work_on_housekeeping_cpus_is_ok(made_up: MadeUpHost) -> None:
    made_up.sys(MASK, "00000000,00000033")
    found = threads.workqueues(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "unbound kernel work runs on CPU 0-1,4-5",
    )


def test_unbound_work_on_isolated_cpus_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.sys(MASK, "ff")
    found = threads.workqueues(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "unbound kernel work may run on isolated CPU 2-3,6-7"
    assert found.advice.startswith(f"Run: echo 33 > {made_up.tree.root}/{MASK} ")


def test_mask_of_many_cpus_has_the_kernels_format(make_up: MakeUp, tmp_path: Path) -> None:
    made_up = MadeUpHost(make_up("1x40x1", {2, 3}), tmp_path)
    made_up.sys(MASK, "ff,ffffffff")
    assert threads.workqueues(made_up.host()).advice.startswith("Run: echo ff,fffffff3 > ")


def test_unbound_work_is_unknown_without_its_file(made_up: MadeUpHost) -> None:
    assert threads.workqueues(made_up.host()).verdict is Verdict.UNKNOWN


def test_bound_threads_and_interrupt_threads_are_ok(made_up: MadeUpHost) -> None:
    made_up.kernel_thread(30, "ksoftirqd/2", "2", ran_on=2, flags=BOUND)
    made_up.kernel_thread(31, "irq/24-eth0", "2", ran_on=2)
    found = threads.kernel_threads(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "3 kernel threads; none that can be moved may run on isolated CPUs",
    )


def test_movable_thread_on_isolated_cpus_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.kernel_thread(15, "rcu_preempt", "0-7", ran_on=1)
    found = threads.kernel_threads(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "may run on isolated CPUs: rcu_preempt (process 15)"
    assert found.advice.startswith("Move each: taskset -pc 0-1,4-5 PID ")


def test_movable_thread_that_ran_there_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.kernel_thread(15, "rcu_preempt", "0-7", ran_on=1)
    made_up.kernel_thread(40, "kswapd0", "0-7", ran_on=6)
    found = threads.kernel_threads(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == "ran on isolated CPUs: kswapd0 (process 40)"


def test_kernel_threads_are_unknown_when_proc_hides_them(made_up: MadeUpHost) -> None:
    made_up.hide_processes()
    with pytest.raises(files.Unseen, match="/proc hides processes"):
        threads.kernel_threads(made_up.host())


def test_thread_that_has_ended_is_ignored(made_up: MadeUpHost) -> None:
    (made_up.directory / "proc" / "77").mkdir()
    assert threads.kernel_threads(made_up.host()).verdict is Verdict.OK
