"""Reads the tables of interrupts and softirqs, and subtracts one reading from a later one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import files, interrupts

if TYPE_CHECKING:
    from isolcpus_dp.host.interrupts import Counts

# The kernel counts in 32 bits (struct irqstat, struct kernel_stat).
_WRAP = 2**32


def read(proc: Path, name: str) -> tuple[Counts, dict[str, str]]:
    """The counts in a file of /proc, and the names of devices by line. Raises Unseen."""
    lines = files.lines(proc / name)
    counts = interrupts.parse(lines)
    if not counts:
        raise files.Unseen(f"{proc / name} has no counts")
    return counts, interrupts.devices(lines)


def grown(before: Counts, after: Counts, cpu: int) -> dict[str, int]:
    """By line, how often it occurred on a CPU between two readings; only those that did.

    None of them for a CPU that was offline at one of the readings. A line that is new begins at 0.
    """
    differences = {
        line: (by_cpu[cpu] - before.get(line, {cpu: 0})[cpu]) % _WRAP
        for line, by_cpu in after.items()
        if cpu in by_cpu and cpu in before.get(line, {cpu: 0})
    }
    return {line: times for line, times in differences.items() if times}
