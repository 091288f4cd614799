"""The counters of a measuring thread."""

from __future__ import annotations

from isolcpus_dp.measure.activity import Loop
from isolcpus_dp.measure.record import loop
from isolcpus_dp.measure.record.loop import Counters

from .conftest import MadeUpKernel

STAT = "812 (os (lat) 3) R 1 812 812 0 -1 4194304 {minor} 0 {major} 0 5 6 0 0 20 0 2\n"


def thread(kernel: MadeUpKernel, switches: int, minor: int, major: int) -> None:
    kernel.proc("812/stat", STAT.format(minor=minor, major=major))
    kernel.proc(
        "812/status",
        "Name:\tos (lat) 3\nvoluntary_ctxt_switches:\t7\n"
        f"nonvoluntary_ctxt_switches:\t{switches}\n",
    )


def test_counters_are_read_from_three_files(kernel: MadeUpKernel) -> None:
    thread(kernel, 5, 100, 2)
    kernel.proc("812/sched", "oslat (812, #threads: 2)\nse.nr_migrations      :          3\n")
    assert loop.read(kernel.roots.proc, 812) == Counters(
        involuntary_switches=5, minor_faults=100, major_faults=2, migrations=3
    )


def test_migrations_need_the_file_sched(kernel: MadeUpKernel) -> None:
    thread(kernel, 5, 100, 2)
    counted = loop.read(kernel.roots.proc, 812)
    assert counted is not None
    assert counted.migrations is None


def test_threads_that_have_ended_have_no_counters(kernel: MadeUpKernel) -> None:
    assert loop.read(kernel.roots.proc, 812) is None


def test_differences_are_what_happened_meanwhile() -> None:
    assert loop.grown(Counters(5, 100, 2, 3), Counters(8, 104, 2, 3)) == Loop(
        involuntary_switches=3, migrations=0, minor_faults=4, major_faults=0
    )
