"""The kernel's histograms: the commands, the parser, the difference of two readings."""

from __future__ import annotations

import pytest

from isolcpus_dp.measure.record import histogram
from isolcpus_dp.measure.record.histogram import CPU, Table, Tally, Trigger

SWITCHES = Trigger("sched/sched_switch", ("next_comm", CPU, "next_pid"), size=8192)
WORKS = Trigger("workqueue/workqueue_execute_start", ("function.sym", CPU))
NOISES = Trigger("osnoise/thread_noise", ("pid", CPU, "duration.log2"), "duration")

# As Linux 6.1 prints it.
TEXT = """\
# event histogram
#
# trigger info: hist:keys=next_comm,common_cpu,next_pid:vals=hitcount:size=8192 [active]
#

{ next_comm: kworker/3:1                                       , common_cpu:          3, \
next_pid:         57 } hitcount:          2
{ next_comm: swapper/2                                         , common_cpu:          2, \
next_pid:          0 } hitcount:       1041

Totals:
    Hits: 1043
    Entries: 2
    Dropped: 0
"""


def entry(comm: str, cpu: int, pid: int, hits: int) -> str:
    return (
        f"{{ next_comm: {comm:50}, common_cpu: {cpu:10}, next_pid: {pid:10} }} hitcount: {hits}\n"
    )


def test_entries_are_by_cpu_and_by_the_other_keys() -> None:
    assert histogram.parse(TEXT, SWITCHES) == Table(
        {3: {("kworker/3:1", "57"): Tally(2)}, 2: {("swapper/2", "0"): Tally(1041)}}
    )


def test_kernels_before_5_14_call_the_cpu_key_cpu() -> None:
    text = "{ next_comm: a, cpu:          3, next_pid:         57 } hitcount:          2\n"
    assert histogram.parse(text, SWITCHES).by_cpu == {3: {("a", "57"): Tally(2)}}


@pytest.mark.parametrize(
    "comm",
    ["a b", "a, b: c", "} hitcount: 9", " } hitcount: 9\n", "x\n{ next_comm:", "{ a, cpu: 7"],
)
def test_names_of_threads_cannot_forge_an_entry(comm: str) -> None:
    text = entry(comm, 3, 57, 5) + entry("b", 2, 58, 6)
    by_cpu = histogram.parse(text, SWITCHES).by_cpu
    assert by_cpu == {3: {(comm.strip(), "57"): Tally(5)}, 2: {("b", "58"): Tally(6)}}


def test_functions_have_no_address_in_front() -> None:
    text = (
        "{ function: [ffffffffa1b2c3d4] wb_workfn                             , common_cpu:   3 }"
        " hitcount:          4\n"
        "{ function: [ffffffffc0001000] rpc_async_release [sunrpc]            , common_cpu:   3 }"
        " hitcount:          1\n"
    )
    assert histogram.parse(text, WORKS).by_cpu == {
        3: {("wb_workfn",): Tally(4), ("rpc_async_release [sunrpc]",): Tally(1)}
    }


def test_powers_of_two_and_sums_are_read() -> None:
    text = "{ pid:   812, common_cpu:     3, duration: ~ 2^12 } hitcount:   5  duration:   17123\n"
    assert histogram.parse(text, NOISES).by_cpu == {3: {("812", "12"): Tally(5, 17123)}}


def test_events_without_room_are_counted() -> None:
    assert histogram.parse(TEXT.replace("Dropped: 0", "Dropped: 17"), SWITCHES).dropped == 17


def test_only_what_grew_between_two_readings_remains() -> None:
    before = Table({3: {("a", "1"): Tally(5, 50), ("b", "2"): Tally(7, 70)}})
    after = Table(
        {
            2: {("a", "1"): Tally(9, 90)},
            3: {("a", "1"): Tally(8, 95), ("b", "2"): Tally(7, 70), ("c", "3"): Tally(1, 4)},
        }
    )
    assert histogram.grown(before, after, 3) == {("a", "1"): Tally(3, 45), ("c", "3"): Tally(1, 4)}


def test_commands_name_keys_sum_size_and_condition() -> None:
    assert SWITCHES.command("common_cpu", "(CPU == 3)") == (
        "hist:keys=next_comm,common_cpu,next_pid:size=8192 if (CPU == 3)"
    )
    assert NOISES.command("cpu", "") == ("hist:keys=pid,cpu,duration.log2:vals=duration:size=2048")
