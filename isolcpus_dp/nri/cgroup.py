"""The CPU quota of a pod's own cgroup, which NRI cannot reach: lifted, and kept so.

The kubelet writes it when all containers of a pod have CPU limits, and again when a pod is resized.
Both cgroup versions, and both of the names that cgroup drivers give: a slice of systemd's, or a
path.
"""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from isolcpus_dp import inotify
from isolcpus_dp.journal import Event, fields

log = logging.getLogger(__name__)

# The file of each version, under the folder that its hierarchy has, and what lifts the quota.
_VERSIONS = (
    ("", "cpu.max", "max"),
    ("cpu,cpuacct", "cpu.cfs_quota_us", "-1"),
    ("cpu", "cpu.cfs_quota_us", "-1"),
)


class Quotas:
    """The quotas of pods that own CPUs. `watch` tells when somebody writes them again."""

    def __init__(self, root: Path, watch: inotify.Watch) -> None:
        self._root = root
        self._watch = watch

    def lift(self, parent: str, pod: str) -> None:
        """Lifts the quota of the pod whose containers have their cgroups in `parent`.

        `parent` is what the kubelet calls it: kubepods-pod1.slice, or /kubepods/pod1.
        """
        for hierarchy, name, unlimited in _VERSIONS:
            folder = self._root / hierarchy / folder_of(parent)
            if parent and (folder / name).is_file():
                self._keep(folder / name, unlimited, pod)
                return

    def _keep(self, file: Path, unlimited: str, pod: str) -> None:
        def lift_again(changed: str) -> None:
            if changed == file.name:
                _lift(file, unlimited, pod)

        try:
            # Watched first: what is written meanwhile is seen twice, but not missed.
            self._watch.add(file.parent, inotify.IN_MODIFY, lift_again)
        except OSError as error:
            log.warning("%s cannot be watched: %s", file.parent, error.strerror)
        _lift(file, unlimited, pod)


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
        log.warning(
            "the CPU quota of pod %s stays, its CPUs are throttled: %s: %s",
            pod, file, error.strerror, extra=fields(Event.QUOTA_KEPT, pod=pod),
        )  # fmt: skip
        return
    log.info("lifted the CPU quota of pod %s", pod, extra=fields(Event.QUOTA_LIFTED, pod=pod))
