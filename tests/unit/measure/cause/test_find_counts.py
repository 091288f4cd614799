"""Causes on a kernel without osnoise: by how often things happened."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isolcpus_dp.measure.activity import Activity, Loop
from isolcpus_dp.measure.cause.cause import Cause, Kind

from .results import MOVE_INTERRUPTS, MOVE_PROCESSES, SERIAL, activity, cause_of, without_tracefs


def test_quiet_cpu_has_no_cause() -> None:
    seen = activity({"LOC": 9, "RES": 1}, {"TIMER": 9}, {"kworker/3:1": 2}, {"vmstat_update": 2})
    assert cause_of(seen) == Cause(
        Kind.NONE,
        "no frequent disturbance; kernel work vmstat_update 0.2/s, the timer interrupt 0.9/s,"
        " interrupt RES of other CPUs 0.1/s, and 1 more",
    )


def test_cpu_without_any_event_has_no_cause() -> None:
    assert cause_of(activity()) == Cause(Kind.NONE, "no disturbance recorded")


def test_pinned_thread_outranks_the_interrupts_that_it_causes() -> None:
    seen = activity(
        {"LOC": 2500, "RES": 30, "CAL": 12},
        {"TIMER": 2500, "SCHED": 2500, "RCU": 2400},
        {"burn/812": 1240, "migration/3": 4, "kworker/3:1": 5},
        {"vmstat_update": 5},
    )
    assert cause_of(seen) == Cause(
        Kind.THREAD, "thread burn/812 ran 1240 times (124/s)", MOVE_PROCESSES
    )


def test_thread_that_wakes_up_rarely_explains_its_few_ticks() -> None:
    seen = activity({"LOC": 160, "RES": 20}, {"TIMER": 150, "SCHED": 140}, {"sleepy/9": 20})
    assert cause_of(seen).words == "thread sleepy/9 ran 20 times (2.0/s)"


def test_rare_thread_does_not_explain_a_tick_that_never_stops() -> None:
    seen = activity({"LOC": 2500}, {"TIMER": 2500, "SCHED": 600}, {"sleepy/9": 11})
    assert cause_of(seen).kind is Kind.TICK


def test_processes_of_a_shell_loop_are_one_cause() -> None:
    threads = {f"sleep/{pid}": 1 for pid in range(500, 540)} | {"sh/499": 41}
    assert (
        cause_of(activity({"LOC": 300}, {}, threads)).words
        == "threads sh/499, sleep (40 of this name) ran 81 times (8.1/s)"
    )


def test_names_of_threads_cannot_send_control_characters() -> None:
    words = cause_of(activity(threads={"bad\x1b[2J/7": 500})).words
    assert words == "thread bad?[2J/7 ran 500 times (50/s)"


def test_thread_of_the_kernel_is_moved_otherwise_than_a_process() -> None:
    assert cause_of(activity(threads={"rcu_preempt/16": 300})) == Cause(
        Kind.THREAD,
        "kernel thread rcu_preempt/16 ran 300 times (30/s)",
        "Move each: taskset -pc 0-1 PID (nohz_full= keeps most of them off isolated CPUs from"
        " boot on)",
    )


def test_huge_pages_are_the_advice_on_their_thread() -> None:
    assert cause_of(activity(threads={"khugepaged/60": 30})).advice == (
        "Boot with transparent_hugepage=madvise or transparent_hugepage=never."
    )


def test_stopper_thread_alone_is_a_thread() -> None:
    seen = activity({"RES": 200, "LOC": 210}, {"SCHED": 200}, {"migration/3": 200})
    found = cause_of(seen)
    assert (found.kind, found.words) == (
        Kind.THREAD,
        "kernel thread migration/3 ran 200 times (20/s)",
    )
    assert found.advice.startswith("The kernel runs it to move a thread")


def test_work_outranks_the_ticks_that_its_worker_causes() -> None:
    seen = activity(
        {"LOC": 700, "RES": 240},
        {"TIMER": 600, "SCHED": 600},
        {"kworker/3:1": 238, "kworker/3:0": 2},
        {"refresh_vm_stats": 238, "vmstat_update": 2},
    )
    assert cause_of(seen) == Cause(
        Kind.WORK,
        "kernel work refresh_vm_stats, vmstat_update ran 240 times (24/s)",
        "It is bound to the CPU that queues it. Find who does: trace-cmd record -e"
        " workqueue:workqueue_queue_work -f 'cpu == NUMBER'",
    )


def test_unbound_work_is_kept_off_by_the_mask() -> None:
    seen = activity(threads={"kworker/u17:2": 50}, works={"wb_workfn": 50})
    assert cause_of(seen) == Cause(
        Kind.WORK,
        "kernel work wb_workfn ran 50 times (5.0/s)",
        "Run: echo 3 > /sys/devices/virtual/workqueue/cpumask (nohz_full= sets this mask at boot)",
    )


def test_statistics_of_the_kernel_can_be_made_rare() -> None:
    seen = activity(threads={"kworker/3:1": 11}, works={"vmstat_update": 11})
    assert cause_of(seen).advice == "Run: sysctl vm.stat_interval=120"


def test_worker_without_known_work_is_work() -> None:
    seen = activity({"LOC": 20}, {}, {"kworker/3:1H": 90})
    assert cause_of(seen).words == "kernel work kworker/3:1H ran 90 times (9.0/s)"


def test_device_outranks_the_work_and_softirqs_of_its_driver() -> None:
    seen = activity(
        {"4": 1200, "LOC": 900, "RES": 20},
        {"TASKLET": 1100, "TIMER": 800, "SCHED": 800},
        {"kworker/3:1": 1190, "ksoftirqd/3": 40},
        {"flush_to_ldisc": 1190},
    )
    assert cause_of(seen, devices=SERIAL) == Cause(
        Kind.DEVICE, "interrupt 4 (ttyS0) fired 1200 times (120/s)", MOVE_INTERRUPTS
    )


def test_thread_of_an_interrupt_is_the_device() -> None:
    seen = activity(
        {"4": 1200, "LOC": 2300},
        {"TIMER": 2000},
        {"irq/4-ttyS0": 1210, "ktimers/3": 300, "ksoftirqd/3": 15, "kworker/3:1": 900},
        {"flush_to_ldisc": 900},
    )
    found = cause_of(seen, devices=SERIAL)
    assert (found.kind, found.words) == (
        Kind.DEVICE,
        "interrupt 4 (ttyS0) fired 1210 times (121/s)",
    )


def test_thread_of_an_interrupt_elsewhere_is_the_device() -> None:
    found = cause_of(activity(threads={"irq/4-ttyS0": 300}), devices=SERIAL)
    assert (found.kind, found.words) == (Kind.DEVICE, "interrupt 4 (ttyS0) fired 300 times (30/s)")


def test_rare_device_does_not_explain_frequent_work() -> None:
    seen = activity({"4": 12}, {}, {"kworker/3:1": 500}, {"drain_local_pages": 500})
    assert cause_of(seen, devices=SERIAL).kind is Kind.WORK


@pytest.mark.parametrize(
    "threads",
    [
        {},
        {"ktimers/3": 2400, "ksoftirqd/3": 700, "rcuc/3": 500},
        {"kworker/3:1": 12, "ksoftirqd/3": 1},
    ],
    ids=["stock kernel", "PREEMPT_RT", "with its statistics"],
)
def test_tick_outranks_softirqs_and_their_threads(threads: dict[str, int]) -> None:
    seen = activity(
        {"LOC": 2500, "IWI": 40},
        {"TIMER": 2500, "SCHED": 2500, "RCU": 2200, "HRTIMER": 3},
        threads,
        {"vmstat_update": 12} if "kworker/3:1" in threads else {},
    )
    assert cause_of(seen, arguments="quiet isolcpus=2-7") == Cause(
        Kind.TICK,
        "the timer interrupt fired 2500 times (250/s)",
        "Boot with nohz_full=2-7",
    )


def test_tick_that_nohz_full_should_stop_is_examined_by_check() -> None:
    assert cause_of(activity({"LOC": 2500})).advice == (
        "nohz_full= stops the tick only while a single thread runs and no timer is due. Run:"
        " isolcpus-dp check --only nohz-full --only timers"
    )


def test_flag_nohz_of_isolcpus_stops_the_tick_as_well() -> None:
    advice = cause_of(activity({"LOC": 2500}), arguments="isolcpus=nohz,domain,2-7").advice
    assert advice.startswith("nohz_full= stops the tick only while")


def test_invalid_argument_names_no_cpu() -> None:
    advice = cause_of(activity({"LOC": 2500}), arguments="nohz_full=x-y").advice
    assert advice == "Boot with nohz_full=2-7"


def test_timer_of_arm_is_the_tick() -> None:
    found = cause_of(activity({"11": 2500}, {"TIMER": 2400}), devices={"11": "arch_timer"})
    assert found.kind is Kind.TICK


@pytest.mark.parametrize(
    ("interrupts", "words"),
    [
        (
            {"CAL": 48_000, "RES": 5, "LOC": 9},
            "interrupts CAL, RES of other CPUs fired 48005 times (4800/s)",
        ),
        (
            {"TLB": 5000, "LOC": 9},
            "interrupt TLB of other CPUs fired 5000 times (500/s)",
        ),
        ({"IPI1": 700}, "interrupt IPI1 of other CPUs fired 700 times (70/s)"),
    ],
)
def test_interrupts_of_other_cpus_are_an_ipi(interrupts: dict[str, int], words: str) -> None:
    seen = activity(interrupts, {"SCHED": 100}, {"kworker/3:1": 3}, {"vmstat_update": 3})
    assert cause_of(seen) == Cause(Kind.IPI, words, "Find what shares memory with the owner.")


def test_interrupts_of_other_cpus_outrank_a_rare_thread() -> None:
    seen = activity({"CAL": 48_000, "LOC": 60}, {}, {"sleepy/9": 12})
    assert cause_of(seen).kind is Kind.IPI


def test_many_interrupts_of_other_cpus_outrank_the_tick() -> None:
    assert cause_of(activity({"CAL": 48_000, "LOC": 2500})).kind is Kind.IPI


def test_softirqs_alone_are_a_softirq() -> None:
    seen = activity({"LOC": 9}, {"NET_RX": 4000, "TIMER": 9}, {"ksoftirqd/3": 3900})
    assert cause_of(seen) == Cause(
        Kind.SOFTIRQ,
        "softirqs NET_RX, TIMER ran 4009 times (401/s)",
        MOVE_INTERRUPTS,
    )


def test_thread_of_rcu_is_a_softirq() -> None:
    found = cause_of(activity({"LOC": 9}, {}, {"rcuc/3": 400}), arguments="isolcpus=2-7")
    assert found == Cause(
        Kind.SOFTIRQ,
        "softirq RCU ran 400 times (40/s)",
        "Boot with rcu_nocbs=2-7, or with nohz_full=, which implies it.",
    )


def test_interrupts_of_the_performance_counters_are_counted_once() -> None:
    assert cause_of(activity({"NMI": 40, "PMI": 40})) == Cause(
        Kind.NMI,
        "a non-maskable interrupt fired 40 times (4.0/s)",
        "Run: sysctl kernel.watchdog_cpumask=0-1 (nohz_full= sets this mask at boot)",
    )


def test_a_single_smi_is_a_cause() -> None:
    found = cause_of(activity({"LOC": 9}, smis=1))
    assert (found.kind, found.words) == (
        Kind.SMI,
        "a system management interrupt of the firmware fired once (0.1/s)",
    )


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (Loop(major_faults=2), "a major page fault of the loop occurred 2 times (0.2/s)"),
        (Loop(minor_faults=180), "a page fault of the loop occurred 150 times (15/s)"),
    ],
)
def test_page_faults_of_the_loop_are_a_cause(loop: Loop, words: str) -> None:
    found = cause_of(activity({"LOC": 9}, loop=loop))
    assert (found.kind, found.words) == (Kind.FAULTS, words)


def test_few_page_faults_of_the_loop_are_no_cause() -> None:
    assert cause_of(activity(loop=Loop(minor_faults=100))).kind is Kind.NONE


def test_page_faults_when_the_loop_begins_are_its_own() -> None:
    short = replace(activity(loop=Loop(minor_faults=14)), seconds=1.0)
    assert cause_of(short).words == "no disturbance recorded"


def test_page_faults_after_interrupts_of_other_cpus_follow_from_them() -> None:
    found = cause_of(activity({"CAL": 110, "TLB": 100}, loop=Loop(minor_faults=170)))
    assert found.kind is Kind.IPI


def test_change_of_the_frequency_is_a_cause_if_nothing_else_is() -> None:
    changed = activity({"LOC": 9}, frequency_mhz=(800, 3200))
    assert cause_of(changed, 12.0) == Cause(
        Kind.FREQUENCY,
        "the frequency changed between 800 and 3200 MHz",
        "Run: cpupower -c 2-7 frequency-set -g performance",
    )
    assert cause_of(activity({"LOC": 2500}, frequency_mhz=(800, 3200)), 12.0).kind is Kind.TICK
    assert cause_of(activity(frequency_mhz=(2990, 3000)), 12.0).kind is Kind.NONE


def test_change_of_the_frequency_that_stopped_nothing_is_no_cause() -> None:
    assert cause_of(activity(frequency_mhz=(3000, 3600)), 4.0).kind is Kind.NONE


def test_softirqs_of_a_network_device_under_load_are_the_device() -> None:
    seen = activity({"25": 300, "LOC": 9}, {"NET_RX": 24_000}, {"ksoftirqd/3": 9000})
    assert cause_of(seen, devices={"25": "virtio1-input.0"}).words == (
        "interrupt 25 (virtio1-input.0) fired 300 times (30/s)"
    )


def test_heat_is_an_event_of_the_hardware() -> None:
    found = cause_of(activity({"TRM": 40, "LOC": 9}))
    assert (found.kind, found.words) == (
        Kind.HARDWARE,
        "hardware event TRM fired 40 times (4.0/s)",
    )


def test_errors_of_the_interrupt_controller_are_no_device() -> None:
    assert cause_of(activity({"SPU": 400, "MCP": 900})).words == "no disturbance recorded"


def test_loop_that_was_preempted_without_tracefs_names_no_thread() -> None:
    assert cause_of(without_tracefs({"LOC": 2500}, preempted=1200)) == Cause(
        Kind.THREAD,
        "threads that could not be named ran 1200 times (120/s)",
        MOVE_PROCESSES,
    )


def test_device_explains_the_preemptions_without_tracefs() -> None:
    found = cause_of(without_tracefs({"4": 1200, "LOC": 300}, preempted=2300), devices=SERIAL)
    assert found.kind is Kind.DEVICE


def test_a_few_events_in_a_short_time_are_no_rate() -> None:
    assert cause_of(Activity(0.5, threads={"sleepy/9": 2})).kind is Kind.NONE
