"""Core types: which CPUs of a machine with two kinds of cores are the fast ones.

On x86, each kind has a perf driver of its own, whose file `cpus` lists its online CPUs
(tools/perf/Documentation/intel-hybrid.txt in the kernel's source). On Arm and RISC-V, the kernel
shows the capacity of a CPU, scaled so that the highest of the machine is 1024
(ABI/testing/sysfs-devices-system-cpu, arch/arm/cpu-capacity.rst).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from isolcpus_dp.host.sysfs import read_cpus, read_number, read_text

CoreType = Literal["performance", "efficient"]

# SCHED_CAPACITY_SCALE of the kernel.
_HIGHEST_CAPACITY = 1024


def read(
    sysfs: Path, present: Iterable[int], online: frozenset[int]
) -> Mapping[int, CoreType | None]:
    """By present CPU: the type of its core; None if it is unknown because the CPU is offline.

    All CPUs of a machine with one kind of cores are `performance`. Raises MachineError.
    """
    listed = _listed(sysfs, online)
    if listed:
        return listed
    capacities = _capacities(f"{sysfs}/devices/system/cpu", present, online)
    if not capacities:
        return dict.fromkeys(present, "performance")
    known = [capacity for capacity in capacities.values() if capacity is not None]
    # Newer kernels hide the capacity of offline CPUs, which may be the fastest ones.
    highest = max(known + [_HIGHEST_CAPACITY] * (None in capacities.values()))
    return {cpu: _by_capacity(capacity, highest) for cpu, capacity in capacities.items()}


def _by_capacity(capacity: int | None, highest: int) -> CoreType | None:
    if capacity is None:
        return None
    return "performance" if capacity >= highest else "efficient"


def _listed(sysfs: Path, online: frozenset[int]) -> dict[int, CoreType | None]:
    """The types that the perf drivers of x86 show; empty if there is one kind of cores.

    `cpu_lowpower` are the E cores outside of the compute tile.
    """
    atom, low = (f"{sysfs}/devices/{name}/cpus" for name in ("cpu_atom", "cpu_lowpower"))
    core = f"{sysfs}/devices/cpu_core/cpus"
    if not any(map(read_text, (core, atom, low))):
        return {}
    efficient = read_cpus(atom) | read_cpus(low)
    types: dict[int, CoreType | None] = dict.fromkeys(
        read_cpus(core) or online - efficient, "performance"
    )
    types.update(dict.fromkeys(efficient, "efficient"))
    return types


def _capacities(root: str, present: Iterable[int], online: frozenset[int]) -> dict[int, int | None]:
    """By present CPU: its capacity; empty if this kernel does not show capacities."""
    # Machines without it may have thousands of CPUs, so only one of them is looked at.
    if not online or read_number(f"{root}/cpu{min(online)}/cpu_capacity") is None:
        return {}
    return {cpu: read_number(f"{root}/cpu{cpu}/cpu_capacity") for cpu in present}
