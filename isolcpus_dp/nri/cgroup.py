"""cgroups, both versions: the quota of a pod's own, which NRI cannot reach, lifted and kept so.

The kubelet writes it when all containers of a pod have CPU limits, and again when a pod is resized.
Both of the names that cgroup drivers give are known: a slice of systemd's, or a path.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, inotify
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

log = logging.getLogger(__name__)

# The file of each version, under the folder that its hierarchy has, and what lifts the quota.
_VERSIONS = (
    ("", "cpu.max", "max"),
    ("cpu,cpuacct", "cpu.cfs_quota_us", "-1"),
    ("cpu", "cpu.cfs_quota_us", "-1"),
)

_FEW_WATCHES = 16


class Quotas:
    """The quotas of pods that own CPUs. `watch` tells when somebody writes them again."""

    def __init__(self, root: Path, watch: inotify.Watch) -> None:
        self._root = root
        self._watch = watch
        self._watched: dict[Path, int] = {}
        self._enough = _FEW_WATCHES  # so many are there before those of ended pods are looked for

    def lift(self, parent: str, pod: str) -> None:
        """Lifts the quota of the pod whose containers have their cgroups in `parent`.

        `parent` is what the kubelet calls it: kubepods-pod1.slice, or /kubepods/pod1.
        """
        if not parent:
            return
        folders = [self._root / hierarchy / folder_of(parent) for hierarchy, _, _ in _VERSIONS]
        for folder, (_, name, unlimited) in zip(folders, _VERSIONS):
            if (folder / name).is_file():
                self._keep(folder / name, unlimited, pod)
                return
        # One that is there without the file has no quota.
        if not any(folder.is_dir() for folder in folders):
            emit(
                log, Event.QUOTA_KEPT,
                "the CPU quota of pod %s, if it has one, stays: there is no cgroup %s below %s",
                pod, folder_of(parent), self._root, pod=pod,
            )  # fmt: skip

    def _keep(self, file: Path, unlimited: str, pod: str) -> None:
        try:
            # Watched first: what is written meanwhile is seen twice, but not missed. The file and
            # not its folder, where the kernel itself tells of a pod that is short of memory.
            before = self._watched.get(file)
            self._watched[file] = self._watch.add_file(
                file, inotify.IN_MODIFY, lambda: _lift(file, unlimited, pod)
            )
            if before not in (None, self._watched[file]):  # a cgroup of that name that has ended
                self._watch.remove(before)
        except OSError as error:
            emit(
                log, Event.DEGRADED, "%s cannot be watched: %s; a CPU quota that the kubelet sets"
                " for pod %s from now on stays", file, error.strerror, pod, pod=pod,
            )  # fmt: skip
        _lift(file, unlimited, pod)
        if len(self._watched) > self._enough:
            self._let_go_of_ended_pods()

    def _let_go_of_ended_pods(self) -> None:
        """The kernel keeps a watch, and what is watched, when a cgroup is removed."""
        for file in [file for file in self._watched if not file.exists()]:
            self._watch.remove(self._watched.pop(file))
        self._enough = _FEW_WATCHES + 2 * len(self._watched)


def nameable(root: Path, machine: Machine) -> frozenset[int]:
    """The CPUs that a container's cpuset may name.

    With cgroup v2 any. v1 takes none that is offline, nor one that the kubelet's own cgroup has
    not: there the kernel has taken out for good what was ever offline
    (kernel/cgroup/cpuset-v1.c). `root` is a host's /sys/fs/cgroup.
    """
    if (root / "cgroup.controllers").exists():
        return machine.present
    for kubepods in ("kubepods.slice", "kubepods"):
        with contextlib.suppress(OSError):
            # One that is just being made has none yet.
            cpus = cpulist.parse((root / "cpuset" / kubepods / "cpuset.cpus").read_text())
            return machine.online & cpus if cpus else machine.online
    return machine.online


def folder_of(parent: str) -> PurePosixPath:
    """Where a cgroup parent lies within its hierarchy.

    systemd nests a-b-c.slice as a.slice/a-b.slice/a-b-c.slice (systemd.slice(5)).
    """
    name = PurePosixPath(parent).name
    if not name.endswith(".slice"):
        return PurePosixPath(parent.lstrip("/"))
    words = name[: -len(".slice")].split("-")
    return PurePosixPath(*(f"{'-'.join(words[: count + 1])}.slice" for count in range(len(words))))


def _lift(file: Path, unlimited: str, pod: str) -> None:
    try:
        if file.read_text().split()[:1] == [unlimited]:
            return
        file.write_text(unlimited)
    except OSError as error:
        emit(
            log, Event.QUOTA_KEPT, "the CPU quota of pod %s stays, its CPUs are throttled: %s: %s",
            pod, file, error.strerror, pod=pod,
        )  # fmt: skip
        return
    emit(log, Event.QUOTA_LIFTED, "lifted the CPU quota of pod %s", pod, pod=pod)
