"""A recording: two readings of everything, by CPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from isolcpus_dp.measure.activity import Activity, Loop, Noise, Recording, Source
from isolcpus_dp.measure.record import osnoise
from isolcpus_dp.measure.record.recorder import Recorder

from .conftest import MadeUpKernel

ONLINE = frozenset({0, 1, 2, 3})
NO_OSNOISE = (
    "how long each thread, interrupt and softirq ran is unknown: the kernel has no osnoise tracer"
    " (CONFIG_OSNOISE_TRACER)"
)
NO_SMIS = "how many SMIs there were is unknown: only Intel CPUs have a counter"

Clock = Callable[[], float]


def state(kernel: MadeUpKernel, step: int) -> None:
    """The kernel's files after some steps; in each, this happens on CPU 2, and on CPU 3 twice."""
    kernel.proc(
        "interrupts",
        "       CPU0  CPU1  CPU2  CPU3\n"
        f" 24:   {step}  0  {step}  {2 * step}   PCI-MSI 1-edge   eth0-rx-0\n"
        f" 25:   {step}  0  0  0   PCI-MSI 2-edge   eth0-rx-1\n"
        f"LOC:   100  100  {100 * step}  {200 * step}   Local timer interrupts\n"
        "ERR:   0\n",
    )
    kernel.proc(
        "softirqs",
        f"       CPU0  CPU1  CPU2  CPU3\n   HI:  0  0  0  0\nTIMER:  9  9  {step}  {2 * step}\n",
    )
    for cpu, tid in ((2, 72), (3, 73)):
        kernel.proc(f"{tid}/status", f"nonvoluntary_ctxt_switches:\t{cpu * step}\n")
        kernel.proc(f"{tid}/sched", "se.nr_migrations   :   1\n")
        kernel.proc(f"{tid}/stat", f"{tid} (oslat) R 1 1 1 0 -1 0 {step} 0 0 0 5 6\n")
        kernel.sys(
            f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq", f"{3_500_000 - step * 100_000}"
        )


def traced(kernel: MadeUpKernel, step: int) -> None:
    """The histograms, as `state`."""
    kernel.histogram(
        "sched/sched_switch",
        f"{{ next_comm: backup , common_cpu: 2, next_pid: 812 }} hitcount: {step}",
        f"{{ next_comm: backup , common_cpu: 3, next_pid: 812 }} hitcount: {2 * step}",
        f"{{ next_comm: oslat , common_cpu: 3, next_pid: 73 }} hitcount: {2 * step}",
    )
    kernel.histogram(
        "workqueue/workqueue_execute_start",
        f"{{ function: [ffffffff81000000] wb_workfn  , common_cpu: 3 }} hitcount: {step}",
    )


@pytest.fixture
def recorded(kernel: MadeUpKernel, clock: Clock) -> Recording:
    """CPUs 2 and 3 with a loop each, from step 1 to step 3."""
    state(kernel, 1)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        traced(kernel, 1)
        recorder.begin([2, 3], {2: 72, 3: 73})
        state(kernel, 3)
        traced(kernel, 3)
        recorder.ignore([72, 73])
        recorder.end([2, 3])
        return recorder.recording()


def test_activities_are_the_differences_of_each_cpu(recorded: Recording) -> None:
    assert recorded.activities == {
        2: Activity(
            seconds=2.0,
            interrupts={"24": 2, "LOC": 200},
            softirqs={"TIMER": 2},
            threads={"backup/812": 2},
            works={},
            noises=None,
            loop=Loop(involuntary_switches=4, migrations=0, minor_faults=2, major_faults=0),
            frequency_mhz=(3200, 3400),
            smis=None,
        ),
        3: Activity(
            seconds=2.0,
            interrupts={"24": 4, "LOC": 400},
            softirqs={"TIMER": 4},
            threads={"backup/812": 4},
            works={"wb_workfn": 2},
            noises=None,
            loop=Loop(involuntary_switches=6, migrations=0, minor_faults=2, major_faults=0),
            frequency_mhz=(3200, 3400),
            smis=None,
        ),
    }


def test_only_devices_that_interrupted_are_named(recorded: Recording) -> None:
    assert recorded.devices == {"24": "eth0-rx-0"}


def test_what_could_not_be_read_is_said_once(recorded: Recording) -> None:
    assert recorded.unseen == (NO_OSNOISE, NO_SMIS)


def test_cpus_begin_and_end_at_their_own_times(kernel: MadeUpKernel, clock: Clock) -> None:
    state(kernel, 1)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        recorder.begin([2], {2: 72})
        state(kernel, 2)
        recorder.begin([3], {3: 73})
        state(kernel, 4)
        recorder.end([2])
        state(kernel, 5)
        recorder.end([3])
        activities = recorder.recording().activities
    assert {cpu: one.interrupts["24"] for cpu, one in activities.items()} == {2: 3, 3: 6}
    assert {cpu: one.seconds for cpu, one in activities.items()} == {2: 4.0, 3: 4.0}


def test_watched_cpus_have_no_loop_and_no_frequency(kernel: MadeUpKernel, clock: Clock) -> None:
    state(kernel, 1)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        recorder.begin([3], {})
        state(kernel, 2)
        recorder.end([3])
        activity = recorder.recording().activities[3]
    assert (activity.loop, activity.frequency_mhz) == (None, None)
    assert activity.interrupts == {"24": 2, "LOC": 200}


def test_cpus_that_are_forgotten_or_did_not_end_are_left_out(
    kernel: MadeUpKernel, clock: Clock
) -> None:
    state(kernel, 1)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        recorder.begin([1, 2, 3], {2: 72, 3: 73})
        recorder.forget([2])
        recorder.end([2, 3])
        recorder.forget([0])
        assert [*recorder.recording().activities] == [3]


def test_noises_have_the_names_of_threads(kernel: MadeUpKernel, clock: Clock) -> None:
    kernel.add_osnoise()
    state(kernel, 1)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        traced(kernel, 1)
        recorder.begin([2], {2: 72})
        kernel.histogram(
            "osnoise/thread_noise",
            "{ pid: 812, common_cpu: 2, duration: ~ 2^12 } hitcount: 2  duration: 6000",
        )
        kernel.histogram(
            "osnoise/softirq_noise",
            "{ vector: 1, common_cpu: 2, duration: ~ 2^10 } hitcount: 1  duration: 900",
        )
        recorder.end([2])
        recording = recorder.recording()
    assert recording.activities[2].noises == (
        Noise(Source.THREAD, "backup/812", count=2, total_us=6.0, longest_us=4.096),
        Noise(Source.SOFTIRQ, "TIMER", count=1, total_us=0.9, longest_us=1.024),
    )
    assert recording.unseen == (NO_SMIS,)


def test_full_histogram_is_said(kernel: MadeUpKernel, clock: Clock) -> None:
    state(kernel, 1)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        recorder.begin([2], {2: 72})
        kernel.histogram("sched/sched_switch", dropped=3)
        recorder.end([2])
        unseen = recorder.recording().unseen
    assert (
        "some events of sched:sched_switch were not counted: more than 8192 different ones occurred"
        in unseen
    )


def test_nothing_readable_is_still_a_recording(kernel: MadeUpKernel, clock: Clock) -> None:
    shutil.rmtree(kernel.roots.proc)
    shutil.rmtree(kernel.roots.tracefs)
    with Recorder(kernel.roots, ONLINE, clock) as recorder:
        recorder.begin([2], {2: 72})
        recorder.end([2])
        recording = recorder.recording()
    assert recording.activities == {2: Activity(seconds=2.0)}
    root = kernel.roots.proc.parent
    assert recording.unseen == (
        f"which threads and kernel workers ran on the CPUs is unknown: {root}/tracing is missing:"
        " the kernel has no event tracing",
        NO_SMIS,
        "the frequency of the CPUs is unknown: the kernel has no driver for it",
        "what happened to the measuring thread of CPU 2 is unknown: it ended",
        f"which interrupts occurred is unknown: {root}/proc/interrupts has no counts",
        f"which softirqs occurred is unknown: {root}/proc/softirqs has no counts",
    )


def test_smis_are_read_on_a_cpu_that_is_not_measured(kernel: MadeUpKernel, clock: Clock) -> None:
    kernel.proc("cpuinfo", "vendor_id\t: GenuineIntel\nflags\t: fpu\n")
    state(kernel, 1)
    register = kernel.roots.dev / "cpu/0/msr"
    register.parent.mkdir(parents=True)
    register.write_bytes(bytes(0x34) + bytes([7, 0, 0, 0, 0, 0, 0, 0]))
    with Recorder(kernel.roots, ONLINE, clock, own_cpu=0) as recorder:
        recorder.begin([2], {2: 72})
        register.write_bytes(bytes(0x34) + bytes([9, 0, 0, 0, 0, 0, 0, 0]))
        recorder.end([2])
        assert recorder.recording().activities[2].smis == 2


def test_instance_is_removed_in_the_end(kernel: MadeUpKernel, clock: Clock) -> None:
    with Recorder(kernel.roots, ONLINE, clock):
        assert kernel.instance.exists()
    assert not kernel.instance.exists()


def test_instance_is_removed_after_an_error(kernel: MadeUpKernel, clock: Clock) -> None:
    with pytest.raises(KeyboardInterrupt), Recorder(kernel.roots, ONLINE, clock):
        raise KeyboardInterrupt
    assert not kernel.instance.exists()


def test_instance_is_removed_if_the_start_is_interrupted(
    kernel: MadeUpKernel, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(osnoise, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), Recorder(kernel.roots, ONLINE, clock):
        pass
    assert not kernel.instance.exists()
