"""The attributes that select the CPUs of a pool: which CPUs have them, and what the others have.

Expects a machine with probable positions (`host.probable`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.devices import Location

if TYPE_CHECKING:
    from isolcpus_dp.config import PoolConfig
    from isolcpus_dp.host.machine import Cpu, Machine

# By name of a device: where it is.
Near = Mapping[str, Location]


@dataclass(frozen=True)
class _Attribute:
    """An attribute as it is configured for a pool."""

    assignment: str  # such as NUMANodes=0-1
    has: Callable[[Cpu], bool | None]  # None: unknown until the CPU comes online
    shown: Callable[[Iterable[Cpu]], str]  # what these CPUs have, for a sentence


def split(
    machine: Machine, pool: PoolConfig, near: Near, cpus: Iterable[int]
) -> tuple[frozenset[int], frozenset[int]]:
    """Those of the CPUs that have all attributes of the pool, and those of which it is unknown."""
    attributes = list(_attributes(machine, pool, near))
    matching, unknown = set[int](), set[int]()
    for cpu in cpus:
        verdicts = {attribute.has(machine.cpus[cpu]) for attribute in attributes}
        if False not in verdicts:
            (unknown if None in verdicts else matching).add(cpu)
    return frozenset(matching), frozenset(unknown)


def unmatched(machine: Machine, pool: PoolConfig, near: Near) -> list[str]:
    """A sentence for each attribute that no isolated CPU of the machine has."""
    isolated = [machine.cpus[cpu] for cpu in sorted(machine.isolated & machine.present)]
    return [
        f"{attribute.assignment} matches no isolated CPU: {attribute.shown(isolated)}"
        for attribute in _attributes(machine, pool, near)
        if not any(attribute.has(cpu) for cpu in isolated)
    ]


def selection(pool: PoolConfig) -> str:
    """What selects the CPUs of a pool, as in the configuration; empty for all CPUs."""
    assignments = []
    if pool.cpus is not None:
        assignments.append(f"CPUs={cpulist.render(pool.cpus)}")
    assignments += _assignments(pool).values()
    if pool.count is not None:
        assignments.append(f"Count={pool.count.cpus}{'/node' if pool.count.per_node else ''}")
    return " ".join(assignments)


def node(machine: Machine, cpu: Cpu) -> int | None:
    """The NUMA node of a CPU. A machine without NUMA is node 0, as in the kernel."""
    return cpu.node if cpu.node is not None or _has_nodes(machine) else 0


def _has_nodes(machine: Machine) -> bool:
    return any(cpu.node is not None for cpu in machine.cpus.values())


def _assignments(pool: PoolConfig) -> dict[str, str]:
    """By key: the assignments of the pool's attributes."""
    texts = {
        "NUMANodes": None if pool.numa_nodes is None else cpulist.render(pool.numa_nodes),
        "Packages": None if pool.packages is None else cpulist.render(pool.packages),
        "CoreType": pool.core_type,
        "Near": pool.near,
    }
    return {key: f"{key}={text}" for key, text in texts.items() if text is not None}


def _attributes(machine: Machine, pool: PoolConfig, near: Near) -> Iterator[_Attribute]:
    assignments = _assignments(pool)
    # Looked up for each CPU below, so it is determined once.
    default_node = None if _has_nodes(machine) else 0
    packaged = any(cpu.package is not None for cpu in machine.cpus.values())
    default_package = None if packaged else 0

    def node_of(cpu: Cpu) -> int | None:
        return default_node if cpu.node is None else cpu.node

    def package_of(cpu: Cpu) -> int | None:
        return default_package if cpu.package is None else cpu.package

    def nodes_of(cpus: Iterable[Cpu]) -> str:
        return _shown("NUMANodes", (node_of(cpu) for cpu in cpus))

    if pool.numa_nodes is not None:
        yield _Attribute(assignments["NUMANodes"], _within(node_of, pool.numa_nodes), nodes_of)
    if pool.packages is not None:
        yield _Attribute(
            assignments["Packages"],
            _within(package_of, pool.packages),
            lambda cpus: _shown("Packages", (package_of(cpu) for cpu in cpus)),
        )
    if pool.core_type is not None:
        yield _Attribute(
            assignments["CoreType"],
            _within(lambda cpu: cpu.core_type, frozenset({pool.core_type})),
            _core_types,
        )
    if pool.near is not None:
        location = near.get(pool.near, Location(found=False))
        everywhere = frozenset(node_of(cpu) for cpu in machine.cpus.values())
        nodes = frozenset({location.node}) - {None}
        if location.found and not nodes and len(everywhere) == 1:
            nodes = everywhere  # all CPUs are equally near
        yield _Attribute(
            assignments["Near"],
            _within(node_of, nodes),
            lambda cpus: _not_near(location, nodes_of(cpus)),
        )


def _within(
    value_of: Callable[[Cpu], object], allowed: frozenset[object]
) -> Callable[[Cpu], bool | None]:
    def has(cpu: Cpu) -> bool | None:
        value = value_of(cpu)
        return None if value is None else value in allowed

    return has


def _shown(key: str, numbers: Iterable[int | None]) -> str:
    known = {number for number in numbers if number is not None}
    return f"isolated CPUs have {key}={cpulist.render(known)}" if known else "they have none"


def _core_types(cpus: Iterable[Cpu]) -> str:
    types = sorted({cpu.core_type for cpu in cpus if cpu.core_type}, reverse=True)
    return f"isolated CPUs have CoreType={' and '.join(types)}" if types else "it is unknown"


def _not_near(location: Location, nodes: str) -> str:
    if not location.found:
        return "this machine has no such device"
    if location.node is None:
        return "the NUMA node of the device is unknown (its numa_node is -1 or absent)"
    return f"the device has numa_node {location.node}, {nodes}"
