"""cgroup versions 1 and 2: lifts the CPU quota of a pod's own cgroup, which NRI cannot change.

The kubelet writes it when all containers of a pod have CPU limits, and again when a pod is resized.
The names of both cgroup drivers are supported: a systemd slice, or a path.
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

# For each version: the directory of its hierarchy, the file of the quota, the value without quota.
_VERSIONS = (
    ("", "cpu.max", "max"),
    ("cpu,cpuacct", "cpu.cfs_quota_us", "-1"),
    ("cpu", "cpu.cfs_quota_us", "-1"),
)

_FEW_WATCHES = 16


class Quotas:
    """Lifts the quotas of pods that own CPUs, again whenever the kubelet writes them."""

    def __init__(self, root: Path, watch: inotify.Watch) -> None:
        self._root = root
        self._watch = watch
        self._watched: dict[Path, int] = {}
        # With more watches than this, those of ended pods are removed.
        self._enough = _FEW_WATCHES

    def lift(self, parent: str, pod: str) -> None:
        """Lifts the quota of the pod whose containers have their cgroups in `parent`.

        `parent` is what the kubelet calls it: kubepods-pod1.slice, or /kubepods/pod1.
        """
        if not parent:
            return
        directories = [self._root / hierarchy / path_of(parent) for hierarchy, _, _ in _VERSIONS]
        for directory, (_, name, unlimited) in zip(directories, _VERSIONS):
            if (directory / name).is_file():
                self._keep_lifted(directory / name, unlimited, pod)
                return
        # A cgroup without the file has no quota.
        if not any(directory.is_dir() for directory in directories):
            emit(
                log, Event.QUOTA_KEPT,
                "could not find the cgroup of pod %s: no %s below %s; its CPU quota is not lifted",
                pod, path_of(parent), self._root, pod=pod,
            )  # fmt: skip

    def _keep_lifted(self, file: Path, unlimited: str, pod: str) -> None:
        """Lifts a quota now and whenever the file is written."""
        try:
            # Watched before it is read, so that no write is missed. The file and not its directory,
            # in which the kernel modifies files when a pod is short of memory.
            before = self._watched.get(file)
            self._watched[file] = self._watch.add_file(
                file, inotify.IN_MODIFY, lambda: _lift(file, unlimited, pod)
            )
            if before not in (None, self._watched[file]):  # an ended cgroup of the same name
                self._watch.remove(before)
        except OSError as error:
            emit(
                log, Event.DEGRADED, "could not watch %s: %s; if the kubelet sets the CPU quota of"
                " pod %s again, it is not lifted", file, error.strerror, pod, pod=pod,
            )  # fmt: skip
        _lift(file, unlimited, pod)
        if len(self._watched) > self._enough:
            self._unwatch_ended_pods()

    def _unwatch_ended_pods(self) -> None:
        """Removes the watches of removed cgroups: the kernel would keep watch and file."""
        for file in [file for file in self._watched if not file.exists()]:
            self._watch.remove(self._watched.pop(file))
        self._enough = _FEW_WATCHES + 2 * len(self._watched)


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


def _lift(file: Path, unlimited: str, pod: str) -> None:
    try:
        if file.read_text().split()[:1] == [unlimited]:
            return
        file.write_text(unlimited)
    except OSError as error:
        emit(
            log, Event.QUOTA_KEPT,
            "could not lift the CPU quota of pod %s: %s: %s; its containers are throttled",
            pod, file, error.strerror, pod=pod,
        )  # fmt: skip
        return
    emit(log, Event.QUOTA_LIFTED, "lifted the CPU quota of pod %s", pod, pod=pod)
