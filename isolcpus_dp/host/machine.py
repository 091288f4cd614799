"""`Machine`: what sysfs says about CPUs, cores, caches and NUMA nodes, and which CPUs are isolated.

Read once, in one go, and never changed: when a CPU comes or goes a new Machine is read. Files
are those of the kernel's ABI/stable/sysfs-devices-system-cpu and ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from isolcpus_dp.host import cpulist


class MachineError(Exception):
    """There is no CPU tree to read, or one of its files makes no sense: one sentence says which."""


@dataclass(frozen=True)
class Cpu:
    """Where one present CPU sits. None and {cpu} stand for what sysfs does not tell.

    The kernel takes the topology and cache folders of a CPU away while it is offline. Such a CPU
    knows only its NUMA node, and what read() carried over from the Machine before.
    """

    cpu: int
    online: bool
    core: int | None  # the number is unique only within the package and die
    siblings: frozenset[int]  # the SMT siblings, the CPU itself among them
    package: int | None
    die: int | None
    cache: frozenset[int]  # the CPUs that share its last-level cache
    node: int | None

    @property
    def placed(self) -> bool:
        """Whether its core is known: not that of a CPU which was offline whenever we looked."""
        return self.online or self.core is not None


@dataclass(frozen=True)
class Machine:
    """The CPUs of a host as they were at one moment; sets hold CPU numbers."""

    possible: frozenset[int]
    present: frozenset[int]
    online: frozenset[int]
    isolated: frozenset[int]  # as the kernel was told: may name CPUs that are not present
    cpus: Mapping[int, Cpu]  # one for every present CPU
    distances: Mapping[tuple[int, int], int]  # from one NUMA node's memory to another's, as ACPI's

    def distance(self, node: int | None, other: int | None) -> int:
        """How far apart two NUMA nodes are; 0 where the kernel does not tell."""
        return 0 if node is None or other is None else self.distances.get((node, other), 0)

    def with_lone_threads(self, cpus: Iterable[int]) -> Machine:
        """The same machine, with each of these CPUs as a core of its own."""
        lone = {cpu: replace(self.cpus[cpu], siblings=frozenset({cpu})) for cpu in cpus}
        return replace(self, cpus={**self.cpus, **lone})

    @property
    def last(self) -> int:
        """The highest CPU number there can be: `N` in a CPU list."""
        return max(self.possible)


def read(sysfs: Path, before: Machine | None = None) -> Machine:
    """The machine under `sysfs` (a host's is /sys).

    The kernel hides where an offline CPU sits: that is carried over from `before`, the Machine as
    it was read earlier, if the CPU was online then. Siblings that were never seen are missing.

    Absent parts are odd hosts, not errors: no NUMA folder, no cache folder, no `isolated` file,
    no topology for an offline CPU. Raises MachineError when there are no CPUs to be found, or
    when a list is no CPU list.
    """
    root = f"{sysfs}/devices/system/cpu"
    present = _cpus(f"{root}/present") or _cpus(f"{root}/online")
    if not present:
        raise MachineError(
            f"{root}/present names no CPU: --sysfs must be a directory laid out like /sys"
        )
    online, cpus = _read_cpus(root, present)
    if before:
        _carry_over(cpus, before)
    return Machine(
        possible=_cpus(f"{root}/possible") | present,
        present=present,
        online=online & present,
        isolated=_cpus(f"{root}/isolated"),
        cpus=cpus,
        distances=_read_distances(f"{sysfs}/devices/system/node"),
    )


def _read_cpus(root: str, present: frozenset[int]) -> tuple[frozenset[int], dict[int, Cpu]]:
    """The online CPUs and what there is to know of all, as of one moment: they change in batches.

    One that went offline in between would be online, but a sibling of nobody.
    """
    while True:
        # A kernel without CPU hotplug has no notion of offline and may lack the file.
        online = _cpus(f"{root}/online") or present
        cpus = {cpu: _read_cpu(root, cpu, online=cpu in online) for cpu in sorted(present)}
        if online == (_cpus(f"{root}/online") or present):
            return online, cpus


def nodes_with_memory(sysfs: Path) -> frozenset[int]:
    """The NUMA nodes that have memory; none where the kernel has no notion of nodes."""
    return _cpus(f"{sysfs}/devices/system/node/has_memory")


def cpuid_device_nodes(sysfs: Path, cpus: Iterable[int]) -> list[Path]:
    """The `/dev/cpu/N/cpuid` device nodes that exist for these CPUs, in their order.

    Asked of sysfs, which shows a device for every node that the kernel's cpuid module makes:
    the daemon's own /dev is a private one and shows none of them.
    """
    return [
        cpuid_device_node(cpu)
        for cpu in sorted(cpus)
        if (sysfs / "devices" / "virtual" / "cpuid" / f"cpu{cpu}").exists()
    ]


def cpuid_device_node(cpu: int) -> Path:
    """Where udev puts the cpuid device of a CPU (admin-guide/devices.txt, major 203)."""
    return Path(f"/dev/cpu/{cpu}/cpuid")


def _read_cpu(root: str, cpu: int, *, online: bool) -> Cpu:
    folder = f"{root}/cpu{cpu}"
    topology = f"{folder}/topology"
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
        cache=_last_level_cache(f"{folder}/cache") or own,
        node=_node(folder),
    )


def _carry_over(cpus: dict[int, Cpu], before: Machine) -> None:
    """Puts offline CPUs where they were, and makes them siblings of their siblings again."""
    for cpu, now in list(cpus.items()):
        known = before.cpus.get(cpu)
        if now.online or known is None or not known.placed:
            continue
        cpus[cpu] = replace(known, online=False, node=now.node)
        for sibling in known.siblings & cpus.keys() - {cpu}:
            siblings = cpus[sibling].siblings | {cpu}
            cpus[sibling] = replace(cpus[sibling], siblings=siblings)


def _read_distances(root: str) -> dict[tuple[int, int], int]:
    """A node's `distance` file has a column for every online node, in the order of their ids."""
    nodes = sorted(_cpus(f"{root}/online"))
    return {
        (node, other): int(text)
        for node in nodes
        for other, text in zip(nodes, _text(f"{root}/node{node}/distance").split())
        if text.isdecimal()
    }


def _last_level_cache(folder: str) -> frozenset[int]:
    """The CPUs that share the cache of the highest level; empty where the kernel shows no cache."""
    indexes = [name for name in _names(folder) if name.startswith("index")]
    levels = [(_number(f"{folder}/{index}/level") or 0, index) for index in sorted(indexes)]
    return _cpus(f"{folder}/{max(levels)[1]}/shared_cpu_list") if levels else frozenset()


def _node(folder: str) -> int | None:
    """The NUMA node whose link stands in a CPU's folder; a kernel without NUMA makes none."""
    for name in _names(folder):
        if name.startswith("node") and name[4:].isdecimal():
            return int(name[4:])
    return None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (as _text: one folder per CPU and part)
    except OSError:
        return []


def _number(path: str) -> int | None:
    """The number in a file; None if there is none, or -1, which is the kernel's word for it."""
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _cpus(path: str) -> frozenset[int]:
    try:
        return _parsed(_text(path))
    except cpulist.CpuListError as error:
        raise MachineError(f"{path} is not a CPU list: {error}") from error


# All CPUs of a core or a cache say the same of it. Kept once, the sets of a machine take a tenth
# of the memory, and of the time to read them.
_parsed = functools.lru_cache(maxsize=4096)(cpulist.parse)


def _text(path: str) -> str:
    """What a sysfs file says; nothing if it cannot be read, as of a CPU that just went offline."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # A CPU list is shorter than a page; one plain read is several times as fast as open().
        return os.read(descriptor, 65536).decode("ascii", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)
