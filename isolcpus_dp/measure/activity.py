"""What happened on one CPU while it was measured. Plain data; `record/` fills it in."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Source(enum.Enum):
    """Who interrupted the measuring thread, in the terms of the kernel's osnoise tracer."""

    THREAD = "thread"
    INTERRUPT = "interrupt"
    SOFTIRQ = "softirq"
    NMI = "nmi"


@dataclass(frozen=True)
class Noise:
    """All interruptions of one CPU by one source, as the osnoise tracer attributes them.

    Times are net: an interrupt that arrives while a thread runs is not counted for the thread
    (Documentation/trace/osnoise-tracer.rst).
    """

    source: Source
    # Of the thread, as in `Activity.threads`; of the device's interrupt, as its driver named it; of
    # the kernel's own interrupt, as `local_timer`; of the softirq, as in /proc/softirqs; or `NMI`.
    name: str
    count: int
    total_us: float
    # An upper bound: the kernel counts durations by powers of two, in nanoseconds. The longest one
    # took at least half of this.
    longest_us: float


@dataclass(frozen=True)
class Loop:
    """What the kernel counted for the measuring thread itself."""

    involuntary_switches: int = 0  # it was preempted
    migrations: int = 0
    minor_faults: int = 0
    major_faults: int = 0


@dataclass(frozen=True)
class Activity:
    """The events on one CPU in `seconds`. A mapping lists only what happened at least once.

    A value that could not be read is None, and `Recording.unseen` says why.
    """

    seconds: float
    # By line of /proc/interrupts, as `4`, `LOC` or `CAL`.
    interrupts: Mapping[str, int] = field(default_factory=dict)
    # By name, as `TIMER` or `RCU`.
    softirqs: Mapping[str, int] = field(default_factory=dict)
    # By thread, how often the scheduler switched to it. Without idle threads and the threads of the
    # measurement itself. A thread is its name and its PID, as `backup/812`, or its name alone if
    # that has a slash, as those of the kernel's threads: `kworker/3:1`. None without tracefs.
    threads: Mapping[str, int] | None = None
    # By function, as `wb_workfn`, how often a kernel worker executed it. None without tracefs.
    works: Mapping[str, int] | None = None
    # None where the kernel has no osnoise tracer.
    noises: tuple[Noise, ...] | None = None
    # None for a CPU that is only watched. `migrations` is 0 if it could not be read.
    loop: Loop | None = None
    # The lowest and the highest frequency read, in MHz; None if the kernel does not tell it, and
    # for a CPU that is only watched.
    frequency_mhz: tuple[int, int] | None = None
    # System management interrupts, which stop all CPUs at the same time; None where the counter
    # cannot be read.
    smis: int | None = None


@dataclass(frozen=True)
class Recording:
    """The activity of all measured or watched CPUs."""

    activities: Mapping[int, Activity]
    # By line, the names that drivers gave to the interrupts that occurred: `{"4": "ttyS0"}`.
    devices: Mapping[str, str] = field(default_factory=dict)
    # One sentence for each kind of facts that could not be read, with the reason.
    unseen: tuple[str, ...] = ()
