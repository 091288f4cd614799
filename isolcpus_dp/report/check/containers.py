"""Which container a process belongs to, and which CPUs it owns.

The kubelet keeps a link to each container's log, named POD_NAMESPACE_CONTAINER-ID.log (kubelet:
legacyLogSymlink() in pkg/kubelet/kuberuntime/legacy.go). The container's cgroup ends with the ID.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.report.check import files

_LOG = re.compile(r"([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")
# CRI-O's conmon, which monitors a container, runs in a cgroup of its own with the same id.
_ID = re.compile(r"(?<![0-9a-f])(?<!conmon-)[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class Container:
    """A container; `name` is namespace/pod/container, or None if the kubelet has no log link."""

    id: str
    name: str | None

    def __str__(self) -> str:
        return self.name or f"container {self.id[:12]}"


def names(logs: Path) -> dict[str, str]:
    """By container id: namespace/pod/container, for all containers that the kubelet runs."""
    matches = (_LOG.fullmatch(name) for name in files.names(logs))
    return {match[4]: f"{match[2]}/{match[1]}/{match[3]}" for match in matches if match}


def cgroups(proc: Path, pid: int) -> list[tuple[str, str]]:
    """The cgroup hierarchies of a process and its path in each; version 2 is the empty name."""
    lines = (line.split(":", 2) for line in files.text(proc / str(pid) / "cgroup").splitlines())
    return [(line[1], line[2]) for line in lines if len(line) == 3]


def find(proc: Path, pid: int, names: dict[str, str]) -> Container | None:
    """The container of a process; None for a process of the host."""
    for _, path in cgroups(proc, pid):
        ids: list[str] = _ID.findall(path)
        if ids:
            # With nested containers, the outermost one is the kubelet's.
            return Container(ids[0], names.get(ids[0]))
    return None
