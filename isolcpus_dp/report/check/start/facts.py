"""`Facts`: what the kubelet validates at its start: its settings, the machine, its state files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import trust
from isolcpus_dp.kubelet import paths
from isolcpus_dp.report.check import files, kubelet_settings
from isolcpus_dp.report.check.start import values

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.report.check.host import Host

_PAGES = re.compile(r"hugepages-([0-9]{1,12})kB")
_MEMORY = re.compile(r"MemTotal:\s*([0-9]+) kB")


@dataclass(frozen=True)
class Facts:
    """All that the rules look at. Memory is in bytes; 0 or absent if unknown."""

    settings: Mapping[str, Any]
    machine: Machine
    nodes: frozenset[int]  # see numa_nodes()
    memory: int = 0
    node_memory: Mapping[int, int] = field(default_factory=dict)
    huge_pages: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    # The text of a state file; None if it is missing.
    cpu_state: str | None = None
    memory_state: str | None = None
    directory: Path = paths.DEFAULT_DIRECTORY

    @property
    def online(self) -> frozenset[int]:
        """The CPUs that the kubelet knows: cAdvisor ignores those that are offline."""
        return self.machine.online

    @property
    def domains(self) -> int:
        """The NUMA nodes that the kubelet counts: without NUMA, a package is a node."""
        packages = {self.machine.cpus[cpu].package for cpu in self.online}
        return len(self.nodes or packages)

    @property
    def reserved(self) -> frozenset[int]:
        """reservedSystemCPUs; empty if it is not set or is not a CPU list."""
        try:
            return values.cpus(values.text(self.settings, "reservedSystemCPUs"))
        except values.ValueRefused:
            return frozenset()

    @property
    def cpu_policy(self) -> str:
        return values.text(self.settings, "cpuManagerPolicy", "none")

    @property
    def topology_policy(self) -> str:
        return values.text(self.settings, "topologyManagerPolicy", "none")

    @property
    def strict(self) -> bool:
        """Whether the shared pool of the CPU manager excludes the reserved CPUs."""
        options = values.pairs(self.settings, "cpuManagerPolicyOptions")
        return values.boolean(options.get("strict-cpu-reservation", "")) is True

    def reservation(self, resource: str) -> Fraction:
        """The sum of systemReserved and kubeReserved; reservedSystemCPUs replaces their CPUs."""
        if resource == "cpu" and self.reserved:
            return Fraction(len(self.reserved))
        found = (
            values.quantity(values.pairs(self.settings, key).get(resource, "0"))
            for key in ("systemReserved", "kubeReserved")
        )
        return sum((amount for amount in found if amount), Fraction(0))


def read(host: Host, *, states: bool = True) -> Facts:
    """The facts of a host; without `states`, a state file that cannot be read counts as missing.

    Raises Unseen.
    """
    directory = kubelet_settings.root(host)
    nodes = numa_nodes(host.roots.sysfs)
    root = host.roots.sysfs / "devices/system/node"
    return Facts(
        settings=kubelet_settings.read(host),
        machine=host.machine,
        nodes=nodes,
        memory=_total(host.roots.proc / "meminfo"),
        node_memory={node: _total(root / f"node{node}/meminfo") for node in nodes},
        huge_pages={node: _huge_pages(root / f"node{node}/hugepages") for node in nodes},
        cpu_state=_state(paths.cpu_manager_state(directory), required=states),
        memory_state=_state(directory / "memory_manager_state", required=states),
        directory=directory,
    )


def numa_nodes(sysfs: Path) -> frozenset[int]:
    """The NUMA nodes that cAdvisor counts, those without CPUs included; empty without NUMA.

    It takes every directory node*, which the kernel creates for online nodes (cadvisor's
    utils/sysinfo, GetNodesInfo). Raises Unseen.
    """
    found = (
        re.fullmatch(r"node([0-9]+)", name) for name in files.names(sysfs / "devices/system/node")
    )
    return frozenset(int(match[1]) for match in found if match)


def _total(file: Path) -> int:
    """MemTotal of a meminfo file in bytes; 0 if there is none. Raises Unseen."""
    match = _MEMORY.search(files.text(file))
    return int(match[1]) * 1024 if match else 0


def _huge_pages(directory: Path) -> dict[str, int]:
    """By resource, such as hugepages-2Mi: the bytes of all huge pages of a node. Raises Unseen."""
    found = {}
    for name in files.names(directory):
        match = _PAGES.fullmatch(name)
        if match:
            size, count = int(match[1]), files.number(directory / name / "nr_hugepages")
            power = next(power for power in (2, 1, 0) if size % 1024**power == 0)
            resource = f"hugepages-{size // 1024**power}{'KMG'[power]}i"
            found[resource] = size * 1024 * (count or 0)
    return found


def _state(file: Path, *, required: bool) -> str | None:
    """The text of a state file; None if it is missing. Raises Unseen if it is required."""
    try:
        text = trust.text(file)
        return text if text or file.exists() else None
    except files.Unseen:
        if required:
            raise
        return None
