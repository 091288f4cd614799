"""What each kind of event means: from how many on it disturbs, what it costs, what it brings along.

The table RULES is all that is assumed about a kernel; `choose` applies it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from isolcpus_dp.measure.cause.cause import Kind


class Role(enum.Enum):
    """Who disturbs a CPU, finer than Kind."""

    PROCESS = "process"
    UNNAMED = "unnamed"  # threads that preempted the loop on a host without tracefs
    KERNEL_THREAD = "kernel thread"
    STOPPER = "stopper"  # threads that the kernel has on each CPU to stop or move others
    WORK = "work"
    DEVICE = "device"
    NMI = "nmi"
    SMI = "smi"
    MAJOR_FAULT = "major fault"
    MINOR_FAULT = "minor fault"
    PLATFORM = "platform"  # the machine reports heat or a hardware error
    TICK = "tick"
    IPI = "ipi"
    SOFTIRQ = "softirq"


@dataclass(frozen=True)
class Rule:
    """What is known about the events of a role."""

    kind: Kind
    subject: str  # {names} stands for who it was
    verb: str
    # Fewer per second are normal. With nohz_full= about one timer interrupt per second remains.
    normal_rate: float
    # The time that an event usually takes, to rank events whose time was not measured. Only the
    # order of magnitude matters.
    usual_us: float
    # Events of these roles follow from this one: at most so many of them for each.
    brings: Mapping[Role, float] = field(default_factory=dict)


# A second thread that can run restarts the tick on a nohz_full CPU until it sleeps again. The
# scheduler switches to one that computes at least every few ticks. It starts with an interrupt from
# another CPU.
_THREAD_BRINGS = {Role.STOPPER: 20, Role.TICK: 20, Role.IPI: 4, Role.SOFTIRQ: 60}
# An item of work or the handler of a device ends sooner.
_SHORT_BRINGS = {Role.TICK: 10, Role.IPI: 4, Role.SOFTIRQ: 30}

# In the order in which single events are suspected: those that take long come first.
RULES: Mapping[Role, Rule] = {
    Role.PROCESS: Rule(
        Kind.THREAD, "thread {names}", "ran", 1, 100, {**_THREAD_BRINGS, Role.WORK: 1}
    ),
    Role.UNNAMED: Rule(
        Kind.THREAD, "threads that could not be named", "ran", 1, 100, _THREAD_BRINGS
    ),
    Role.KERNEL_THREAD: Rule(Kind.THREAD, "kernel thread {names}", "ran", 1, 50, _THREAD_BRINGS),
    Role.STOPPER: Rule(Kind.THREAD, "kernel thread {names}", "ran", 1, 20, _SHORT_BRINGS),
    Role.WORK: Rule(Kind.WORK, "kernel work {names}", "ran", 1, 20, _SHORT_BRINGS),
    # Drivers queue work. While packets arrive, one interrupt is followed by many softirqs.
    # PREEMPT_RT runs the handlers in threads.
    Role.DEVICE: Rule(
        Kind.DEVICE,
        "interrupt {names}",
        "fired",
        1,
        10,
        {**_SHORT_BRINGS, Role.SOFTIRQ: 100, Role.WORK: 2, Role.UNNAMED: 4},
    ),
    Role.NMI: Rule(Kind.NMI, "a non-maskable interrupt", "fired", 1, 10),
    Role.SMI: Rule(Kind.SMI, "a system management interrupt of the firmware", "fired", 0, 150),
    Role.MAJOR_FAULT: Rule(Kind.FAULTS, "a major page fault of the loop", "occurred", 0, 1000),
    Role.MINOR_FAULT: Rule(Kind.FAULTS, "a page fault of the loop", "occurred", 10, 2),
    Role.PLATFORM: Rule(Kind.HARDWARE, "hardware event {names}", "fired", 1, 10),
    # Each tick may raise the softirqs TIMER, SCHED and RCU, and an irq_work interrupt. Timers queue
    # periodic work of the kernel, such as vmstat_update.
    Role.TICK: Rule(
        Kind.TICK,
        "the timer interrupt",
        "fired",
        10,
        5,
        {Role.SOFTIRQ: 4, Role.IPI: 1, Role.WORK: 0.02},
    ),
    Role.IPI: Rule(
        Kind.IPI,
        "interrupt {names} of other CPUs",
        "fired",
        10,
        3,
        # A process whose memory is unmapped touches other memory of its own again.
        {Role.SOFTIRQ: 2, Role.MINOR_FAULT: 2},
    ),
    Role.SOFTIRQ: Rule(Kind.SOFTIRQ, "softirq {names}", "ran", 10, 5),
}

# Single events of these roles do not take long.
SHORT = frozenset({Role.MINOR_FAULT, Role.PLATFORM, Role.TICK, Role.IPI, Role.SOFTIRQ})
