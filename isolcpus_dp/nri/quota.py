"""The CPU quota of a pod's own cgroup, which NRI cannot change: lifts it, and restores it.

The kubelet writes it when all containers of a pod have CPU limits or the pod has one itself, and
again when a pod is resized. What it wrote last is noted on the cgroup, see `notes`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from isolcpus_dp.nri import cgroup, notes
from isolcpus_dp.nri.notes import Note, Quota, Replaced
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.nri.watches import Watches

log = logging.getLogger(__name__)

# For each version: the directory of its hierarchy, the file of the quota, the value without quota.
_VERSIONS = (
    ("", "cpu.max", "max"),
    ("cpu,cpuacct", "cpu.cfs_quota_us", "-1"),
    ("cpu", "cpu.cfs_quota_us", "-1"),
)


class _Cgroup(NamedTuple):
    """The cgroup of a pod that has the file of a quota."""

    file: Path
    unlimited: str

    @property
    def directory(self) -> Path:
        return self.file.parent

    def is_lifted(self) -> bool:
        return self.file.read_text().split()[:1] == [self.unlimited]

    def read(self) -> Quota | None:
        """The quota; None if there is none."""
        words = self.file.read_text().split()
        if not words or words[0] == self.unlimited:
            return None
        if len(words) == 1:  # version 1
            period = self.file.with_name("cpu.cfs_period_us")
            words += period.read_text().split() if period.exists() else []
        return Quota(*map(int, words))

    def write(self, quota: Quota) -> None:
        # The period of version 1 has a file of its own, which lifting does not change.
        version_1 = self.file.name == "cpu.cfs_quota_us"
        self.file.write_text(str(quota.time) if version_1 else f"{quota.time} {quota.period}")


class Quotas:
    """Lifts the quotas of pods that own CPUs, again whenever the kubelet writes them."""

    def __init__(self, root: Path, watches: Watches) -> None:
        self._root = root
        self._watches = watches
        self._missing: set[str] = set()  # parents whose absence is logged

    def note(self, parent: str) -> Note:
        """What is noted about the pod whose containers have their cgroups in `parent`.

        `parent` is what the kubelet calls it: kubepods-pod1.slice, or /kubepods/pod1.
        """
        found = self._find(parent)
        return notes.read(found.directory) if found else Note()

    def note_containers(self, parent: str, pod: str, containers: Mapping[str, Replaced]) -> None:
        """Replaces what is noted about the containers of a pod."""
        found = self._find(parent)
        if found:
            note = notes.read(found.directory)
            if note.containers != containers:
                _note(found, pod, Note(note.pod, dict(containers)))

    def lift(self, parent: str, pod: str, on_set: Callable[[], object]) -> Quota | None:
        """Lifts the quota of a pod now and whenever the kubelet writes it; returns the kubelet's.

        Calls `on_set()` after it was lifted again.
        """
        if not parent:
            return None
        found = self._find(parent)
        if found is None:
            self._report_missing(parent, pod)
            return None
        try:
            # Watched before it is read, so that no write is missed.
            self._watches.add(found.file, lambda: _lift_again(found, pod, on_set))
        except OSError as error:
            if not found.file.exists():  # the pod has ended
                return None
            emit(
                log, Event.DEGRADED, "could not watch %s: %s; if the kubelet sets the CPU quota of"
                " pod %s again, it is not lifted", found.file, error.strerror, pod, pod=pod,
            )  # fmt: skip
        _lift(found, pod)
        return notes.read(found.directory).pod

    def restore(self, parent: str, pod: str) -> None:
        """Restores the quota of a pod, if it was lifted, and no longer watches it."""
        found = self._find(parent)
        if found is None:
            return
        self._watches.remove(found.file)
        note = notes.read(found.directory)
        if note.pod is None:
            return
        try:
            # Otherwise the kubelet has written it meanwhile.
            if found.is_lifted():
                found.write(note.pod)
                emit(log, Event.QUOTA_RESTORED, "restored the CPU quota of pod %s", pod, pod=pod)
        except OSError as error:
            if found.file.exists():  # the pod has not ended
                emit(
                    log, Event.DEGRADED, "could not restore the CPU quota of pod %s: %s: %s; it has"
                    " no CPU limit", pod, found.file, error.strerror, pod=pod,
                )  # fmt: skip
            return
        _note(found, pod, Note(None, note.containers))

    def _find(self, parent: str) -> _Cgroup | None:
        if not parent:
            return None
        for hierarchy, name, unlimited in _VERSIONS:
            file = self._root / hierarchy / cgroup.path_of(parent) / name
            if file.is_file():
                return _Cgroup(file, unlimited)
        return None

    def _report_missing(self, parent: str, pod: str) -> None:
        path = cgroup.path_of(parent)
        # A cgroup without the file has no quota.
        exists = any((self._root / hierarchy / path).is_dir() for hierarchy, _, _ in _VERSIONS)
        if exists or parent in self._missing:
            return
        self._missing.add(parent)
        emit(
            log, Event.QUOTA_KEPT,
            "could not find the cgroup of pod %s: no %s below %s; its CPU quota is not lifted",
            pod, path, self._root, pod=pod,
        )  # fmt: skip


def _lift_again(found: _Cgroup, pod: str, on_set: Callable[[], object]) -> None:
    if _lift(found, pod):
        on_set()


def _lift(found: _Cgroup, pod: str) -> bool:
    """Lifts a quota; whether there was one."""
    try:
        if found.is_lifted():
            return False
        quota = found.read()
        if quota:
            # Noted first: if the daemon ends before it is lifted, nothing is lost.
            _note(found, pod, Note(quota, notes.read(found.directory).containers))
        found.file.write_text(found.unlimited)
    except OSError as error:
        if found.file.exists():  # the pod has not ended
            emit(
                log, Event.QUOTA_KEPT,
                "could not lift the CPU quota of pod %s: %s: %s; its containers are throttled",
                pod, found.file, error.strerror, pod=pod,
            )  # fmt: skip
        return False
    emit(log, Event.QUOTA_LIFTED, "lifted the CPU quota of pod %s", pod, pod=pod)
    return True


def _note(found: _Cgroup, pod: str, note: Note) -> None:
    try:
        notes.write(found.directory, note)
    except OSError as error:
        if found.directory.is_dir():
            emit(
                log, Event.DEGRADED, "could not note the CPU quota of pod %s on its cgroup %s: %s;"
                " it is not restored when its owners have ended",
                pod, found.directory, error.strerror, pod=pod,
            )  # fmt: skip
