"""A cause of disturbances: what it is, in words, and what to do. Plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """The kinds of causes, from the most to the least specific."""

    THREAD = "thread"
    WORK = "work"  # an item of a kernel workqueue
    DEVICE = "device"  # the interrupt of a device
    TICK = "tick"  # the scheduler's timer interrupt
    IPI = "ipi"  # interrupts that other CPUs send
    SOFTIRQ = "softirq"
    NMI = "nmi"
    SMI = "smi"
    FAULTS = "faults"  # page faults of the loop
    FREQUENCY = "frequency"
    HARDWARE = "hardware"  # nothing that the kernel knows of: firmware, hypervisor, SMT sibling
    NONE = "none"


@dataclass(frozen=True)
class Cause:
    """The most likely cause of the disturbances of one CPU."""

    kind: Kind
    words: str  # `thread backup/812 ran 120 times`
    advice: str = ""  # as `check` gives it; empty if there is nothing to do
