"""`Machine`: the CPUs, cores, caches and NUMA nodes in sysfs, and which CPUs are isolated.

A Machine is read at once and does not change; when a CPU comes or goes, a new one is read. The
kernel's ABI/stable/sysfs-devices-system-cpu and ABI/stable/sysfs-devices-node describe the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from isolcpus_dp.host import core_types, siblings
from isolcpus_dp.host.core_types import CoreType
from isolcpus_dp.host.sysfs import (
    MachineError,
    forget_cpus,
    list_names,
    read_cpus,
    read_number,
    read_text,
)

__all__ = ["CoreType", "Cpu", "Machine", "MachineError", "is_current", "read"]


@dataclass(frozen=True)
class Cpu:
    """One present CPU and its position. What sysfs does not show is None, or {cpu} for a set.

    The kernel removes the directories `topology` and `cache` of a CPU while it is offline. For such
    a CPU only its NUMA node is known, and what read() carried over from the earlier Machine.
    """

    cpu: int
    online: bool
    core: int | None  # the number is unique only within the package and die
    siblings: frozenset[int]  # the SMT siblings, including the CPU itself; the same for each
    package: int | None
    die: int | None
    cache: frozenset[int]  # the CPUs that share its last-level cache
    node: int | None
    core_type: CoreType | None = "performance"  # None while it is offline; see core_types

    @property
    def placed(self) -> bool:
        """Whether its core is known.

        It is not if the CPU was offline at every reading, and no online CPU names it as a sibling.
        """
        return self.online or self.core is not None or len(self.siblings) > 1


@dataclass(frozen=True)
class Machine:
    """The CPUs of a host at one moment; sets hold CPU numbers."""

    possible: frozenset[int]
    present: frozenset[int]
    online: frozenset[int]
    isolated: frozenset[int]  # as on the kernel command line: may include CPUs that are not present
    cpus: Mapping[int, Cpu]  # one for every present CPU
    distances: Mapping[
        tuple[int, int], int
    ]  # between two NUMA nodes, as in ACPI's SLIT: 10 is local
    conflicting: frozenset[int] = frozenset()  # of cores about which sysfs contradicts itself
    late: frozenset[int] = frozenset()  # threads that became known after others of their core
    smt_off: bool = False  # the kernel keeps all threads of a core offline but the first one

    def distance(self, node: int | None, other: int | None) -> int:
        """The distance of two NUMA nodes; 0 if it is unknown."""
        return 0 if node is None or other is None else self.distances.get((node, other), 0)

    def with_separate_cores(self, cpus: Iterable[int]) -> Machine:
        """The same machine, with each of these CPUs as a separate core."""
        lone = {cpu: replace(self.cpus[cpu], siblings=frozenset({cpu})) for cpu in cpus}
        return replace(self, cpus={**self.cpus, **lone})

    @property
    def last(self) -> int:
        """The highest possible CPU number: `N` in a CPU list."""
        return max(self.possible)


def read(sysfs: Path, before: Machine | None = None) -> Machine:
    """The machine under `sysfs`, which is /sys on a host.

    The kernel hides the position of an offline CPU: it is carried over from `before`, an earlier
    Machine, if the CPU was online then. Siblings that were never online are missing; when they
    become known, they are `late`.

    These files may be absent: NUMA nodes, caches, `isolated`, the topology of an offline CPU.
    Raises MachineError if no CPU is present, or if a file cannot be read or is not a CPU list.
    """
    forget_cpus()
    root = f"{sysfs}/devices/system/cpu"
    present = read_cpus(f"{root}/present") or read_cpus(f"{root}/online")
    if not present:
        raise MachineError(
            f"{root}/present names no CPU: --sysfs must be a directory laid out like /sys"
        )
    online, cpus = _read_cpus(sysfs, present)
    conflicting = siblings.reconcile(cpus)
    if before:
        conflicting |= _carry_over(cpus, before)
    machine = Machine(
        possible=read_cpus(f"{root}/possible") | present,
        present=present,
        online=online & present,
        isolated=read_cpus(f"{root}/isolated"),
        cpus=cpus,
        distances=_read_distances(f"{sysfs}/devices/system/node"),
        conflicting=conflicting,
        smt_off=_smt_off(root),
    )
    return replace(machine, late=siblings.late(machine, before)) if before else machine


def is_current(sysfs: Path, machine: Machine) -> bool:
    """Whether `read` would return this machine, which was read earlier since the host was booted.

    Compares the kernel's lists of CPUs and NUMA nodes, and whether SMT is off: the position of an
    online CPU is fixed. It reads 6 files and not several per CPU. Raises MachineError, as `read`
    does.
    """
    root = f"{sysfs}/devices/system/cpu"
    present = read_cpus(f"{root}/present") or read_cpus(f"{root}/online")
    return (
        present == machine.present
        and (read_cpus(f"{root}/online") or present) & present == machine.online
        and read_cpus(f"{root}/possible") | present == machine.possible
        and read_cpus(f"{root}/isolated") == machine.isolated
        and _smt_off(root) == machine.smt_off
        and read_cpus(f"{sysfs}/devices/system/node/online")
        == {node for node, _ in machine.distances}
    )


def _read_cpus(sysfs: Path, present: frozenset[int]) -> tuple[frozenset[int], dict[int, Cpu]]:
    """The online CPUs, and all CPUs by number, of one moment.

    Repeated if CPUs went offline or online in between: such a CPU would have no siblings.
    """
    root = f"{sysfs}/devices/system/cpu"
    while True:
        # A kernel without CPU hotplug may lack the file.
        online = read_cpus(f"{root}/online") or present
        types = core_types.read(sysfs, present, online & present)
        cpus = {
            cpu: _read_cpu(root, cpu, types.get(cpu), online=cpu in online)
            for cpu in sorted(present)
        }
        if online == (read_cpus(f"{root}/online") or present):
            return online, cpus


def nodes_with_memory(sysfs: Path) -> frozenset[int]:
    """The NUMA nodes that have memory; empty on a kernel without NUMA."""
    return read_cpus(f"{sysfs}/devices/system/node/has_memory")


def cpuid_device_nodes(sysfs: Path, cpus: Iterable[int]) -> list[Path]:
    """The device nodes `/dev/cpu/N/cpuid` that exist for these CPUs, in ascending order.

    Read from sysfs, which has an entry for each device of the kernel's cpuid module: the daemon's
    own /dev is private (PrivateDevices=) and does not contain them.
    """
    return [
        cpuid_device_node(cpu)
        for cpu in sorted(cpus)
        if (sysfs / "devices" / "virtual" / "cpuid" / f"cpu{cpu}").exists()
    ]


def cpuid_device_node(cpu: int) -> Path:
    """The path of a CPU's cpuid device (admin-guide/devices.txt, major 203)."""
    return Path(f"/dev/cpu/{cpu}/cpuid")


def _read_cpu(root: str, cpu: int, core_type: CoreType | None, *, online: bool) -> Cpu:
    directory = f"{root}/cpu{cpu}"
    topology = f"{directory}/topology"
    own = frozenset({cpu})
    return Cpu(
        cpu=cpu,
        online=online,
        core=read_number(f"{topology}/core_id"),
        # core_cpus_list is the newer name of the same file (kernel 5.3).
        siblings=read_cpus(f"{topology}/core_cpus_list")
        or read_cpus(f"{topology}/thread_siblings_list")
        or own,
        package=read_number(f"{topology}/physical_package_id"),
        die=read_number(f"{topology}/die_id"),
        cache=_last_level_cache(f"{directory}/cache") or own,
        node=_node(directory),
        core_type=core_type,
    )


def _carry_over(cpus: dict[int, Cpu], before: Machine) -> frozenset[int]:
    """Restores the earlier position of offline CPUs, and adds them to their siblings' sets.

    Returns the CPUs of those cores about which sysfs contradicted itself when a CPU of them that
    is now offline was online.
    """
    offline = [cpu for cpu, now in cpus.items() if not now.online]
    for cpu in offline:
        known = before.cpus.get(cpu)
        if known is not None and known.placed:
            cpus[cpu] = replace(known, online=False, node=cpus[cpu].node)
    siblings.reconcile(cpus)
    return frozenset().union(*(cpus[cpu].siblings for cpu in offline if cpu in before.conflicting))


def _smt_off(root: str) -> bool:
    """Whether SMT is off: `nosmt`, mitigations=auto,nosmt, or written to this file."""
    return read_text(f"{root}/smt/control") in ("off", "forceoff")


def _read_distances(root: str) -> dict[tuple[int, int], int]:
    """By pair of NUMA nodes: their distance.

    A node's file `distance` has a column for every online node, in ascending order.
    """
    nodes = sorted(read_cpus(f"{root}/online"))
    return {
        (node, other): int(text)
        for node in nodes
        for other, text in zip(nodes, read_text(f"{root}/node{node}/distance").split())
        if text.isdecimal()
    }


def _last_level_cache(directory: str) -> frozenset[int]:
    """The CPUs that share the cache of the highest level; empty if the kernel shows no cache."""
    indexes = [name for name in list_names(directory) if name.startswith("index")]
    levels = [(read_number(f"{directory}/{index}/level") or 0, index) for index in sorted(indexes)]
    return read_cpus(f"{directory}/{max(levels)[1]}/shared_cpu_list") if levels else frozenset()


def _node(directory: str) -> int | None:
    """The NUMA node that a CPU's directory links to; None on a kernel without NUMA."""
    for name in list_names(directory):
        if name.startswith("node") and name[4:].isdecimal():
            return int(name[4:])
    return None
