"""cgroup versions 1 and 2: which CPUs a cpuset may name, and where the cgroup of a pod is.

The names of both cgroup drivers are supported: a systemd slice, or a path.
"""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine


def nameable(root: Path, machine: Machine) -> frozenset[int]:
    """The CPUs that a container's cpuset may name; `root` is /sys/fs/cgroup on a host.

    With cgroup v2, all present CPUs. v1 rejects offline CPUs, and CPUs that the kubelet's own
    cgroup lacks: the kernel removes a CPU from it permanently when the CPU goes offline
    (kernel/cgroup/cpuset-v1.c).
    """
    if (root / "cgroup.controllers").exists():
        return machine.present
    for kubepods in ("kubepods.slice", "kubepods"):
        with contextlib.suppress(OSError, cpulist.CpuListError):
            # A cgroup that was just created has no CPUs yet.
            cpus = cpulist.parse((root / "cpuset" / kubepods / "cpuset.cpus").read_text())
            return machine.online & cpus if cpus else machine.online
    return machine.online


def path_of(parent: str) -> PurePosixPath:
    """The path of a cgroup parent within its hierarchy.

    systemd nests a-b-c.slice as a.slice/a-b.slice/a-b-c.slice (systemd.slice(5)).
    """
    name = PurePosixPath(parent).name
    if not name.endswith(".slice"):
        return PurePosixPath(parent.lstrip("/"))
    words = name[: -len(".slice")].split("-")
    return PurePosixPath(*(f"{'-'.join(words[: count + 1])}.slice" for count in range(len(words))))
