"""`Machine`: the CPUs, cores, caches and NUMA nodes in sysfs, and which CPUs are isolated.

A Machine is read at once and does not change; when a CPU comes or goes, a new one is read. The
kernel's ABI/stable/sysfs-devices-system-cpu and ABI/stable/sysfs-devices-node describe the files.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from isolcpus_dp.host import cpulist, siblings

# The errors of a file that is not there. A file in use when its CPU goes offline gives ENODEV.
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})

_PAGE = 4096


class MachineError(Exception):
    """sysfs lists no CPUs, or one of its files is invalid or cannot be read; one sentence."""


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

    @property
    def placed(self) -> bool:
        """Whether its core is known. It is not if the CPU was offline at every reading."""
        return self.online or self.core is not None


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
    efficiency: frozenset[int] = frozenset()  # the online E cores of a hybrid machine
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
    root = f"{sysfs}/devices/system/cpu"
    present = _cpus(f"{root}/present") or _cpus(f"{root}/online")
    if not present:
        raise MachineError(
            f"{root}/present names no CPU: --sysfs must be a directory laid out like /sys"
        )
    online, cpus = _read_cpus(root, present)
    conflicting = siblings.reconcile(cpus)
    if before:
        conflicting |= _carry_over(cpus, before)
    machine = Machine(
        possible=_cpus(f"{root}/possible") | present,
        present=present,
        online=online & present,
        isolated=_cpus(f"{root}/isolated"),
        cpus=cpus,
        distances=_read_distances(f"{sysfs}/devices/system/node"),
        conflicting=conflicting,
        efficiency=_efficiency(sysfs),
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
    present = _cpus(f"{root}/present") or _cpus(f"{root}/online")
    return (
        present == machine.present
        and (_cpus(f"{root}/online") or present) & present == machine.online
        and _cpus(f"{root}/possible") | present == machine.possible
        and _cpus(f"{root}/isolated") == machine.isolated
        and _smt_off(root) == machine.smt_off
        and _cpus(f"{sysfs}/devices/system/node/online") == {node for node, _ in machine.distances}
    )


def _read_cpus(root: str, present: frozenset[int]) -> tuple[frozenset[int], dict[int, Cpu]]:
    """The online CPUs, and all CPUs by number, of one moment.

    Repeated if CPUs went offline or online in between: such a CPU would have no siblings.
    """
    while True:
        # A kernel without CPU hotplug may lack the file.
        online = _cpus(f"{root}/online") or present
        cpus = {cpu: _read_cpu(root, cpu, online=cpu in online) for cpu in sorted(present)}
        if online == (_cpus(f"{root}/online") or present):
            return online, cpus


def nodes_with_memory(sysfs: Path) -> frozenset[int]:
    """The NUMA nodes that have memory; empty on a kernel without NUMA."""
    return _cpus(f"{sysfs}/devices/system/node/has_memory")


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


def _read_cpu(root: str, cpu: int, *, online: bool) -> Cpu:
    directory = f"{root}/cpu{cpu}"
    topology = f"{directory}/topology"
    own = frozenset({cpu})
    return Cpu(
        cpu=cpu,
        online=online,
        core=_number(f"{topology}/core_id"),
        # core_cpus_list is the newer name of the same file (kernel 5.3).
        siblings=_cpus(f"{topology}/core_cpus_list")
        or _cpus(f"{topology}/thread_siblings_list")
        or own,
        package=_number(f"{topology}/physical_package_id"),
        die=_number(f"{topology}/die_id"),
        cache=_last_level_cache(f"{directory}/cache") or own,
        node=_node(directory),
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


def _efficiency(sysfs: Path) -> frozenset[int]:
    """The online E cores of a hybrid machine (Intel), which have a perf driver of their own.

    tools/perf/Documentation/intel-hybrid.txt in the kernel's source describes the files.
    """
    return _cpus(f"{sysfs}/devices/cpu_atom/cpus") | _cpus(f"{sysfs}/devices/cpu_lowpower/cpus")


def _smt_off(root: str) -> bool:
    """Whether SMT is off: `nosmt`, mitigations=auto,nosmt, or written to this file."""
    return _text(f"{root}/smt/control") in ("off", "forceoff")


def _read_distances(root: str) -> dict[tuple[int, int], int]:
    """By pair of NUMA nodes: their distance.

    A node's file `distance` has a column for every online node, in ascending order.
    """
    nodes = sorted(_cpus(f"{root}/online"))
    return {
        (node, other): int(text)
        for node in nodes
        for other, text in zip(nodes, _text(f"{root}/node{node}/distance").split())
        if text.isdecimal()
    }


def _last_level_cache(directory: str) -> frozenset[int]:
    """The CPUs that share the cache of the highest level; empty if the kernel shows no cache."""
    indexes = [name for name in _names(directory) if name.startswith("index")]
    levels = [(_number(f"{directory}/{index}/level") or 0, index) for index in sorted(indexes)]
    return _cpus(f"{directory}/{max(levels)[1]}/shared_cpu_list") if levels else frozenset()


def _node(directory: str) -> int | None:
    """The NUMA node that a CPU's directory links to; None on a kernel without NUMA."""
    for name in _names(directory):
        if name.startswith("node") and name[4:].isdecimal():
            return int(name[4:])
    return None


def _names(directory: str) -> list[str]:
    """The names in a directory; none if it is absent. Raises MachineError."""
    try:
        return os.listdir(directory)  # noqa: PTH208 (faster; called several times per CPU)
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise MachineError(f"cannot read {directory}: {error.strerror}") from error


def _number(path: str) -> int | None:
    """The number in a file; None if there is none, or if it is -1: the kernel's unknown."""
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _cpus(path: str) -> frozenset[int]:
    try:
        return _parsed(_text(path))
    except cpulist.CpuListError as error:
        raise MachineError(f"{path} is not a CPU list: {error}") from error


# All CPUs of a core or a cache have the same list. With equal sets kept once, a machine takes a
# tenth of the memory, and of the time to read it.
_parsed = functools.lru_cache(maxsize=4096)(cpulist.parse)


def _text(path: str) -> str:
    """The text of a sysfs file; empty if it is absent: a CPU may just have gone offline.

    Raises MachineError for any other error: a file that cannot be read is not an absent one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = part = os.read(descriptor, 65536)
            # One plain read is several times as fast as open(). Only a list of thousands of CPUs
            # may need more: the kernel returns at most a page of some files at a time.
            while len(part) >= _PAGE:
                part = os.read(descriptor, 65536)
                data += part
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _ABSENT:
            return ""
        raise MachineError(f"cannot read {path}: {error.strerror}") from error
    # Linux 5.15 to 5.19 print the final zero byte of a list, too (bitmap_print_to_buf()).
    return data.decode("ascii", "replace").rstrip("\0 \t\n").lstrip()
