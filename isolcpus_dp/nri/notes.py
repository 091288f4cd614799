"""The CPU quotas that the kubelet set and pinning replaced, noted on the cgroup of their pod.

The note is an extended attribute of the cgroup's directory (Linux 5.7). So it exists as long as the
quotas that it is about: it survives the daemon, and ends with the pod and when the host is booted.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ATTRIBUTE = "user.isolcpus-dp.quota"

# Linux accepts no smaller quota (kernel/sched/core.c).
SMALLEST = 1_000
USUAL_PERIOD = 100_000


class Quota(NamedTuple):
    """CPU time in microseconds per period; the time is -1 for no limit."""

    time: int
    period: int = USUAL_PERIOD

    @property
    def cpus(self) -> float:
        """The number of CPUs that can be used all the time."""
        return self.time / self.period


class Replaced(NamedTuple):
    """A container's quota as the kubelet set it, and the time of the quota that it has instead."""

    quota: Quota
    by: int


@dataclass
class Note:
    """The quotas that were replaced; the pod's own is None if it was not."""

    pod: Quota | None = None
    containers: dict[str, Replaced] = field(default_factory=dict)  # by container id


def read(directory: Path) -> Note:
    """The note on a pod's cgroup; an empty one if there is none, or if it cannot be read."""
    note = Note()
    try:
        for line in os.getxattr(directory, ATTRIBUTE).decode().splitlines():
            key, *numbers = line.split()
            if key == "pod":
                time, period = map(int, numbers)
                note.pod = Quota(time, period)
            else:
                time, period, by = map(int, numbers)
                note.containers[key] = Replaced(Quota(time, period), by)
    except (OSError, ValueError):
        return Note()
    return note


def write(directory: Path, note: Note) -> None:
    """Replaces the note; an empty one is removed. Raises OSError."""
    lines = [f"pod {note.pod.time} {note.pod.period}"] if note.pod else []
    lines += [f"{key} {old.time} {old.period} {by}" for key, (old, by) in note.containers.items()]
    if lines:
        os.setxattr(directory, ATTRIBUTE, "\n".join(lines).encode())
        return
    try:
        os.removexattr(directory, ATTRIBUTE)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
