"""Which container a process belongs to, and which CPUs it owns.

The kubelet keeps a link to each container's log, named POD_NAMESPACE_CONTAINER-ID.log (kubelet:
legacyLogSymlink() in pkg/kubelet/kuberuntime/legacy.go). The container's cgroup ends with the ID.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.host import daemons
from isolcpus_dp.report.check import files

_LOG = re.compile(r"([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")


@dataclass(frozen=True)
class Container:
    """A container; `name` is namespace/pod/container, or None if the kubelet has no log link."""

    id: str
    name: str | None

    def __str__(self) -> str:
        return self.name or f"container {self.id[:12]}"


def names(logs: Path) -> dict[str, str]:
    """By container id: namespace/pod/container, for all containers that the kubelet runs.

    Raises Unseen, also if another user could have written the names.
    """
    if not _is_roots(logs):
        raise files.Unseen(
            f"{logs} is not trusted: users other than root can write it; run chown root {logs};"
            f" chmod go-w {logs}"
        )
    matches = (_LOG.fullmatch(name) for name in files.names(logs))
    return {match[4]: f"{match[2]}/{match[1]}/{match[3]}" for match in matches if match}


def find(proc: Path, cgroup_root: Path, pid: int, names: dict[str, str]) -> Container | None:
    """The container of a process; None for a process of the host."""
    for hierarchy, path in daemons.cgroups(proc, pid):
        found = daemons.container_id(path)
        directory = cgroup_root / hierarchy.removeprefix("name=")
        if found and _created_by_root(directory, path.partition(found)[0]):
            return Container(found, names.get(found))
    return None


@functools.lru_cache(maxsize=4096)
def _created_by_root(hierarchy: Path, before_id: str) -> bool:
    """Whether only root can have created the cgroup whose name has a container's id after this.

    Users can create cgroups of any name below those that systemd has delegated to them.
    """
    return _is_roots(f"{hierarchy}/{before_id.rpartition('/')[0]}")


def _is_roots(directory: Path | str) -> bool:
    """Whether only root can create names in a directory; also if it is missing."""
    try:
        status = os.stat(directory)  # noqa: PTH116 (text is faster: one call per container)
    except OSError:
        return True
    writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (0, os.geteuid()) and not writable
