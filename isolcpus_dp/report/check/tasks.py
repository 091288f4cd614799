"""The threads of the host as /proc tells of them: where each may run, and where it last did.

A host has thousands, so each is read once, and more of it only when somebody asks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.host import cpulist
from isolcpus_dp.report.check import files

# The parent of all kernel threads.
_KTHREADD = "2"
# Of the fields of stat (proc(5)) behind the name, which may itself hold blanks and brackets.
_FLAGS, _PROCESSOR = 6, 36
# include/linux/sched.h: the kernel has bound the thread and lets nobody move it.
_PF_NO_SETAFFINITY = 0x04000000


@dataclass(frozen=True)
class Thread:
    """A thread of a process, or of the kernel."""

    folder: str  # in /proc
    pid: int
    name: str
    kernel: bool
    allowed: frozenset[int]

    @property
    def last_cpu(self) -> int | None:
        """Where it runs, or ran last; None if it has ended meanwhile."""
        return self._number(_PROCESSOR)

    @property
    def movable(self) -> bool:
        """Whether somebody else than the kernel may set its CPUs."""
        return not (self._number(_FLAGS) or 0) & _PF_NO_SETAFFINITY

    @property
    def parent_of_the_kernels(self) -> bool:
        """Whether it is kthreadd. In a PID namespace, process 2 is somebody else."""
        return self.pid == int(_KTHREADD) and self.name == "kthreadd"

    def _number(self, field: int) -> int | None:
        fields = files.text(f"{self.folder}/stat").rpartition(")")[2].split()
        return int(fields[field]) if len(fields) > field else None


def read(proc: Path) -> tuple[Thread, ...]:
    """All threads of the host. Raises Unseen if there is no /proc at all."""
    pids = [int(name) for name in files.names(proc) if name.isdecimal()]
    if not pids:
        raise files.Unseen(f"{proc} shows no process")
    return tuple(thread for pid in sorted(pids) for thread in _threads(proc, pid))


def _threads(proc: Path, pid: int) -> Iterator[Thread]:
    folder = f"{proc}/{pid}"
    said = _status(folder)
    if not said:
        return
    first = _thread(folder, pid, said)
    yield first
    if first.kernel or said.get("Threads") == "1":
        return
    for tid in files.names(f"{folder}/task"):
        if tid != str(pid):
            said = _status(f"{folder}/task/{tid}")
            if said:
                yield _thread(f"{folder}/task/{tid}", pid, said)


def _thread(folder: str, pid: int, said: dict[str, str]) -> Thread:
    return Thread(
        folder=folder,
        pid=pid,
        name=said.get("Name", ""),
        kernel=_KTHREADD in (said.get("PPid"), str(pid)),
        allowed=_parsed(said.get("Cpus_allowed_list", "")),
    )


def _status(folder: str) -> dict[str, str]:
    """The lines of a status file; nothing of a thread that has ended."""
    lines = (line.partition(":") for line in files.text(f"{folder}/status").splitlines())
    return {key: value.strip() for key, _, value in lines}


# Most threads may run on the same CPUs.
_parsed = functools.lru_cache(maxsize=4096)(cpulist.parse)
