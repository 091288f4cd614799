"""Which container a process belongs to, and which CPUs it owns.

The kubelet keeps a link for each container's log whose name says all (CRI, kubelet's legacy log
links): POD_NAMESPACE_CONTAINER-ID.log. The id is the last part of the container's cgroup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.report.check import files

_LOG = re.compile(r"([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")
# CRI-O's conmon, which watches over a container, has a cgroup with the same id beside it.
_ID = re.compile(r"(?<![0-9a-f])(?<!conmon-)[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class Container:
    """A container by its id; `name` is namespace/pod/container if the kubelet knows it."""

    id: str
    name: str | None

    def __str__(self) -> str:
        return self.name or f"container {self.id[:12]}"


def names(logs: Path) -> dict[str, str]:
    """namespace/pod/container of every container that the kubelet runs, by its id."""
    matches = (_LOG.fullmatch(name) for name in files.names(logs))
    return {match[4]: f"{match[2]}/{match[1]}/{match[3]}" for match in matches if match}


def cgroups(proc: Path, pid: int) -> list[tuple[str, str]]:
    """A process's hierarchies of cgroups with its path in each; the one of version 2 is ``."""
    lines = (line.split(":", 2) for line in files.text(proc / str(pid) / "cgroup").splitlines())
    return [(line[1], line[2]) for line in lines if len(line) == 3]


def of(proc: Path, pid: int, names: dict[str, str]) -> Container | None:
    """The container that a process belongs to; None if to none."""
    for _, path in cgroups(proc, pid):
        ids: list[str] = _ID.findall(path)
        if ids:
            # Of containers within containers, the outermost is the kubelet's.
            return Container(ids[0], names.get(ids[0]))
    return None
