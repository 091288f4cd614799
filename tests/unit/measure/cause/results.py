"""Results of measurements of ten seconds on a host with eight CPUs, of which 2-7 are isolated."""

from __future__ import annotations

from collections.abc import Mapping

from isolcpus_dp.measure.activity import Activity, Loop, Noise, Recording, Source
from isolcpus_dp.measure.cause import find
from isolcpus_dp.measure.cause.cause import Cause
from isolcpus_dp.measure.result import Histogram, Result

ARGUMENTS = "quiet isolcpus=domain,managed_irq,2-7 nohz_full=2-7"
QUIET_HISTOGRAM = Histogram({1: 9_999_990, 2: 10}, 2.0, 10.0)
SERIAL = {"4": "ttyS0"}

MOVE_PROCESSES = (
    "For a container: run isolcpus-dp-pin, which keeps it off these CPUs. For a process of the"
    " host: run taskset -apc 0-1 PID, and set AllowedCPUs=0-1 for its slice or init.scope, as"
    " isolcpus-dp plan does, or correct CPUAffinity= in its unit."
)
MOVE_INTERRUPTS = "Move each: echo 0-1 > /proc/irq/NUMBER/smp_affinity_list"


def activity(
    interrupts: Mapping[str, int] | None = None,
    softirqs: Mapping[str, int] | None = None,
    threads: Mapping[str, int] | None = None,
    works: Mapping[str, int] | None = None,
    noises: tuple[Noise, ...] | None = None,
    *,
    loop: Loop | None = None,
    smis: int | None = None,
    frequency_mhz: tuple[int, int] | None = None,
) -> Activity:
    """What happened in ten seconds, on a kernel with tracefs."""
    return Activity(
        10.0,
        interrupts or {},
        softirqs or {},
        threads or {},
        works or {},
        noises,
        loop or Loop(),
        frequency_mhz,
        smis,
    )


def without_tracefs(interrupts: Mapping[str, int], preempted: int) -> Activity:
    """The loop was preempted so many times; by whom is not known."""
    return Activity(10.0, interrupts, {}, None, None, None, Loop(involuntary_switches=preempted))


def interrupt(name: str, count: int, total_us: float, longest_us: float) -> Noise:
    return Noise(Source.INTERRUPT, name, count, total_us, longest_us)


def thread(name: str, count: int, total_us: float, longest_us: float) -> Noise:
    return Noise(Source.THREAD, name, count, total_us, longest_us)


def softirq(name: str, count: int, total_us: float, longest_us: float) -> Noise:
    return Noise(Source.SOFTIRQ, name, count, total_us, longest_us)


def result(
    activities: Mapping[int, Activity],
    histograms: Mapping[int, Histogram] | None = None,
    *,
    devices: Mapping[str, str] | None = None,
    unseen: tuple[str, ...] = (),
    limit_us: float | None = None,
    watched: frozenset[int] = frozenset(),
    owners: Mapping[int, str] | None = None,
    arguments: str = ARGUMENTS,
) -> Result:
    quiet = {cpu: QUIET_HISTOGRAM for cpu in activities if cpu not in watched}
    return Result(
        host="node-1",
        kernel="6.12.48-amd64",
        began="2026-03-02T10:15:00Z",
        seconds=10.0,
        limit_us=limit_us,
        histograms=quiet if histograms is None else histograms,
        recording=Recording(activities, devices or {}, unseen),
        isolated=frozenset({2, 3, 4, 5, 6, 7}),
        housekeeping=frozenset({0, 1}),
        watched=watched,
        owners=owners or {},
        arguments=arguments,
    )


def cause_of(
    seen: Activity,
    longest_us: float | None = None,
    *,
    devices: Mapping[str, str] | None = None,
    limit_us: float | None = None,
    arguments: str = ARGUMENTS,
) -> Cause:
    """The cause on CPU 3; only its longest iteration differs from a quiet CPU's."""
    histogram = QUIET_HISTOGRAM
    if longest_us is not None:
        histogram = Histogram({1: 9_999_990, 2: 9, round(longest_us): 1}, longest_us, 10.0)
    measured = result(
        {3: seen}, {3: histogram}, devices=devices, limit_us=limit_us, arguments=arguments
    )
    return find.find(measured)[3]
