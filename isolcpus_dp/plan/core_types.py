"""The two types of cores of a hybrid machine: performance and efficient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isolcpus_dp.host import files

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

CoreType = Literal["performance", "efficient"]


def efficient(sysfs: Path, machine: Machine) -> frozenset[int]:
    """The CPUs of efficient cores; empty if all cores are of one type. Raises Unseen.

    On x86 they have a perf driver of their own. On Arm and RISC-V each CPU has a cpu_capacity, and
    performance cores are those with the highest (ABI/testing/sysfs-devices-system-cpu).
    """
    if machine.efficiency:
        return machine.efficiency
    capacities = {cpu: _capacity(sysfs, cpu) for cpu in machine.online}
    highest = max(capacities.values(), default=0)
    return frozenset(cpu for cpu, capacity in capacities.items() if 0 < capacity < highest)


def _capacity(sysfs: Path, cpu: int) -> int:
    text = files.text(f"{sysfs}/devices/system/cpu/cpu{cpu}/cpu_capacity")
    return int(text) if text.isdecimal() else 0
