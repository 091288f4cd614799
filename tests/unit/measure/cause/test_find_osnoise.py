"""Causes on a kernel with osnoise: by the time that each took."""

from __future__ import annotations

from dataclasses import replace

from isolcpus_dp.measure.activity import Noise, Source
from isolcpus_dp.measure.cause.cause import Cause, Kind

from .results import (
    MOVE_INTERRUPTS,
    MOVE_PROCESSES,
    SERIAL,
    activity,
    cause_of,
    interrupt,
    softirq,
    thread,
)

LONG_TICK = interrupt("local_timer", 9, 20.0, 4.0)


def test_pinned_thread_has_most_time() -> None:
    seen = activity(
        {"LOC": 2500},
        {"TIMER": 2500},
        {"burn/812": 1240},
        noises=(
            thread("burn/812", 1240, 4_900_000.0, 4096.0),
            interrupt("local_timer", 2500, 6000.0, 16.0),
            softirq("TIMER", 2500, 4000.0, 8.0),
        ),
    )
    assert cause_of(seen) == Cause(
        Kind.THREAD,
        "thread burn/812 ran 1240 times (124/s), at most 4096 us",
        MOVE_PROCESSES,
    )


def test_measured_time_decides_between_independent_causes() -> None:
    short = (thread("poll/9", 500, 900.0, 4.0), interrupt("call_function", 30_000, 45_000.0, 4.0))
    seen = activity({"CAL": 30_000}, {}, {"poll/9": 500}, noises=short)
    assert cause_of(seen).kind is Kind.IPI
    longer = replace(seen, noises=(thread("poll/9", 500, 90_000.0, 512.0), short[1]))
    assert cause_of(longer).kind is Kind.THREAD


def test_driver_of_a_device_is_the_device() -> None:
    seen = activity(
        {"4": 1200, "LOC": 2300},
        {},
        {"irq/4-ttyS0": 1200, "kworker/3:1": 1100},
        {"flush_to_ldisc": 1100},
        noises=(
            interrupt("ttyS0", 1200, 4000.0, 8.0),
            thread("irq/4-ttyS0", 1200, 30_000.0, 64.0),
            thread("kworker/3:1", 1100, 80_000.0, 128.0),
            interrupt("local_timer", 2300, 5000.0, 8.0),
        ),
    )
    assert cause_of(seen, devices=SERIAL) == Cause(
        Kind.DEVICE,
        "interrupt 4 (ttyS0) fired 1200 times (120/s), at most 64 us",
        MOVE_INTERRUPTS,
    )


def test_tick_on_preempt_rt_is_the_tick() -> None:
    seen = activity(
        {"LOC": 2500},
        {"TIMER": 2500},
        {"ktimers/3": 2400, "ksoftirqd/3": 900},
        noises=(
            interrupt("local_timer", 2500, 9000.0, 16.0),
            thread("ktimers/3", 2400, 20_000.0, 32.0),
            thread("ksoftirqd/3", 900, 8000.0, 32.0),
        ),
    )
    found = cause_of(seen, arguments="isolcpus=2-7")
    assert (found.kind, found.advice) == (Kind.TICK, "Boot with nohz_full=2-7")


def test_periodic_work_on_a_ticking_cpu_follows_the_tick() -> None:
    seen = activity(
        {"LOC": 2500},
        {"TIMER": 2500},
        {"kworker/3:1": 14},
        {"vmstat_update": 14},
        noises=(
            interrupt("local_timer", 2500, 5000.0, 16.0),
            thread("kworker/3:1", 14, 9000.0, 2048.0),
        ),
    )
    assert cause_of(seen).kind is Kind.TICK


def test_work_is_named_by_its_functions() -> None:
    seen = activity(
        {"LOC": 500},
        {},
        {"kworker/3:1": 240},
        {"refresh_vm_stats": 240},
        noises=(thread("kworker/3:1", 240, 2400.0, 32.0), LONG_TICK),
    )
    assert cause_of(seen).words == (
        "kernel work refresh_vm_stats ran 240 times (24/s), at most 32 us"
    )


def test_noises_alone_are_enough() -> None:
    noises = (
        thread("burn/812", 1240, 4_900_000.0, 4096.0),
        interrupt("local_timer", 2500, 6000.0, 16.0),
    )
    seen = replace(activity(), threads=None, works=None, noises=noises)
    assert cause_of(seen).words == "thread burn/812 ran 1240 times (124/s), at most 4096 us"


def test_nmi_is_measured_as_well() -> None:
    seen = activity(noises=(Noise(Source.NMI, "", 60, 600.0, 16.0),))
    assert cause_of(seen).kind is Kind.NMI


def test_quiet_cpu_has_no_cause() -> None:
    seen = activity({"LOC": 9}, {}, {"kworker/3:1": 2}, {"vmstat_update": 2}, (LONG_TICK,))
    assert cause_of(seen).kind is Kind.NONE


def test_rare_thread_that_was_long_enough_exceeded_the_limit() -> None:
    seen = activity(
        {"LOC": 2500},
        {},
        {"backup/7": 4},
        noises=(
            thread("backup/7", 4, 900.0, 512.0),
            interrupt("local_timer", 2500, 5000.0, 4.0),
        ),
    )
    assert cause_of(seen, 400.0).kind is Kind.TICK
    assert cause_of(seen, 400.0, limit_us=20.0).words == (
        "thread backup/7 ran 4 times (0.4/s), at most 512 us"
    )


def test_limit_that_no_noise_reaches_is_exceeded_by_the_hardware() -> None:
    seen = activity({"LOC": 9}, {}, {"backup/7": 4}, {}, (thread("backup/7", 4, 9.0, 4.0),))
    assert cause_of(seen, 400.0, limit_us=20.0).kind is Kind.HARDWARE


def test_frequent_cause_remains_if_no_noise_reaches_the_limit() -> None:
    seen = activity({"LOC": 2500}, noises=(interrupt("local_timer", 2500, 5000.0, 4.0),))
    assert cause_of(seen, 400.0, limit_us=20.0).kind is Kind.TICK
