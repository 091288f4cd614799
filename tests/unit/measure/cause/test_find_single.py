"""Causes of a long iteration on a CPU where nothing happens often, and of watched CPUs."""

from __future__ import annotations

from dataclasses import replace

from isolcpus_dp.measure.cause import find
from isolcpus_dp.measure.cause.cause import Cause, Kind

from .results import MOVE_INTERRUPTS, QUIET_HISTOGRAM, SERIAL, activity, cause_of, result

QUIET = activity({"LOC": 9})
FIRMWARE = (
    "Keep the core's other threads idle (isolcpus-dp check --only smt-siblings), and look for the"
    " vendor's low-latency settings in the firmware: hwlatdetect finds its interruptions."
)


def test_rare_thread_is_suspected_before_rare_work_and_devices() -> None:
    seen = activity({"4": 2, "LOC": 9}, {}, {"backup/7": 1, "kworker/3:1": 3}, {"wb_workfn": 3})
    assert cause_of(seen, 300.0, devices=SERIAL, limit_us=20.0).words == (
        "thread backup/7 ran once (0.1/s)"
    )


def test_rare_work_is_suspected_before_a_device() -> None:
    seen = activity({"4": 2}, {}, {"kworker/3:1": 3}, {"wb_workfn": 3})
    assert cause_of(seen, 300.0, devices=SERIAL, limit_us=20.0).kind is Kind.WORK


def test_rare_thread_is_no_cause_within_the_limit() -> None:
    seen = activity(threads={"backup/7": 1})
    assert cause_of(seen, 300.0, limit_us=500.0).kind is Kind.NONE


def test_single_tick_explains_an_iteration_that_is_not_too_long() -> None:
    assert cause_of(QUIET, 30.0, limit_us=20.0) == Cause(
        Kind.TICK,
        "the timer interrupt fired 9 times (0.9/s)",
        "nohz_full= stops the tick only while a single thread runs and no timer is due. Run:"
        " isolcpus-dp check --only nohz-full --only timers",
    )


def test_iteration_too_long_for_a_tick_is_the_hardware() -> None:
    assert cause_of(QUIET, 300.0, limit_us=20.0) == Cause(
        Kind.HARDWARE,
        "nothing that the kernel records: the firmware or the core's other threads",
        FIRMWARE,
    )


def test_iteration_that_stands_out_is_the_hardware_without_a_limit() -> None:
    assert cause_of(QUIET, 300.0).kind is Kind.HARDWARE
    assert cause_of(QUIET, 30.0).kind is Kind.NONE


def test_rare_thread_may_be_why_an_iteration_stands_out() -> None:
    assert cause_of(activity(threads={"backup/7": 1}), 300.0) == Cause(
        Kind.NONE, "no frequent disturbance; thread backup/7 0.1/s"
    )


def test_hypervisor_is_the_hardware_of_a_virtual_machine() -> None:
    assert cause_of(QUIET, 300.0, devices={"24": "virtio0-config"}) == Cause(
        Kind.HARDWARE,
        "nothing that the kernel records: the hypervisor or its host",
        "On the hypervisor, give each virtual CPU an isolated CPU of its own: `steal` in vmstat.",
    )


def test_threads_of_an_owner_are_no_disturbance() -> None:
    seen = replace(
        activity({"LOC": 2500, "RES": 20}, {"TIMER": 2500}, {"forwarder/77": 300}), loop=None
    )
    watched = result({3: seen}, watched=frozenset({3}), owners={3: "default/router/main"})
    assert find.find(watched)[3] == Cause(
        Kind.NONE, "nothing but threads that may be the owner's: thread forwarder/77 30/s"
    )


def test_watched_cpu_without_threads_lists_rare_events() -> None:
    watched = result({3: replace(QUIET, loop=None)}, watched=frozenset({3}))
    assert find.find(watched)[3] == Cause(
        Kind.NONE, "no frequent disturbance; the timer interrupt 0.9/s"
    )


def test_device_on_an_owned_cpu_is_a_disturbance() -> None:
    seen = replace(activity({"4": 900}, {}, {"forwarder/77": 300}), loop=None)
    watched = result({3: seen}, devices=SERIAL, watched=frozenset({3}))
    assert find.find(watched)[3] == Cause(
        Kind.DEVICE, "interrupt 4 (ttyS0) fired 900 times (90/s)", MOVE_INTERRUPTS
    )


def test_advice_on_cpu_0_is_to_isolate_others() -> None:
    measured = replace(
        result({0: activity({"LOC": 2500})}),
        isolated=frozenset({0, 3}),
        housekeeping=frozenset({1, 2}),
    )
    assert find.find(measured)[0].advice == "Boot with isolcpus=nohz,domain,managed_irq,3"


def test_housekeeping_cpu_needs_no_advice() -> None:
    found = find.find(result({1: activity({"LOC": 2500}), 0: QUIET}))
    assert found[1] == Cause(Kind.TICK, "the timer interrupt fired 2500 times (250/s)")
    assert found[0].kind is Kind.NONE


def test_cpu_that_was_not_recorded_has_no_cause() -> None:
    assert find.find(result({}, {3: QUIET_HISTOGRAM})) == {
        3: Cause(Kind.NONE, "what happened on this CPU was not recorded")
    }
