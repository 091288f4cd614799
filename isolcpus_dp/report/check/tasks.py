"""The host's threads in /proc: on which CPUs each may run, and on which it last ran.

A host has thousands of them, so each is read once, and its `stat` file only when needed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.host import cpulist
from isolcpus_dp.report.check import files

# The PID of kthreadd, the parent of all kernel threads.
_KTHREADD = "2"
# Fields of stat (proc(5)), counted after the name, which may contain spaces and brackets.
_FLAGS, _USER_TICKS, _KERNEL_TICKS, _PROCESSOR = 6, 11, 12, 36
# include/linux/sched.h: the kernel has bound the thread, and its CPUs cannot be changed.
_PF_NO_SETAFFINITY = 0x04000000


@dataclass(frozen=True)
class Thread:
    """A thread of a process, or of the kernel."""

    directory: str  # in /proc
    pid: int
    name: str
    kernel: bool
    allowed: frozenset[int]

    @property
    def last_cpu(self) -> int | None:
        """The CPU on which it runs or last ran; None if it has ended since."""
        return self._number(_PROCESSOR)

    @property
    def ticks(self) -> int:
        """The processor time that it has used, in clock ticks of 10 ms."""
        return (self._number(_USER_TICKS) or 0) + (self._number(_KERNEL_TICKS) or 0)

    @property
    def movable(self) -> bool:
        """Whether its CPUs can be changed from user space."""
        return not (self._number(_FLAGS) or 0) & _PF_NO_SETAFFINITY

    @property
    def parent_of_the_kernels(self) -> bool:
        """Whether it is kthreadd. In a PID namespace, process 2 is another program."""
        return self.pid == int(_KTHREADD) and self.name == "kthreadd"

    def _number(self, field: int) -> int | None:
        fields = files.text(f"{self.directory}/stat").rpartition(")")[2].split()
        return int(fields[field]) if len(fields) > field else None


def read(proc: Path) -> tuple[Thread, ...]:
    """All threads of the host. Raises Unseen if /proc lists no processes."""
    pids = [int(name) for name in files.names(proc) if name.isdecimal()]
    if not pids:
        raise files.Unseen(f"{proc} lists no processes")
    return tuple(thread for pid in sorted(pids) for thread in _threads(proc, pid))


def _threads(proc: Path, pid: int) -> Iterator[Thread]:
    directory = f"{proc}/{pid}"
    status = _status(directory)
    if not status:
        return
    first = _thread(directory, pid, status)
    yield first
    if first.kernel or status.get("Threads") == "1":
        return
    for tid in files.names(f"{directory}/task"):
        if tid != str(pid):
            status = _status(f"{directory}/task/{tid}")
            if status:
                yield _thread(f"{directory}/task/{tid}", pid, status)


def _thread(directory: str, pid: int, status: dict[str, str]) -> Thread:
    return Thread(
        directory=directory,
        pid=pid,
        name=status.get("Name", ""),
        kernel=_KTHREADD in (status.get("PPid"), str(pid)),
        allowed=_parsed(status.get("Cpus_allowed_list", "")),
    )


def _status(directory: str) -> dict[str, str]:
    """By key: the values of a status file; empty if the thread has ended."""
    lines = (line.partition(":") for line in files.lines(f"{directory}/status"))
    return {key: value.strip() for key, _, value in lines}


# Most threads have the same list of CPUs.
_parsed = functools.lru_cache(maxsize=4096)(cpulist.parse)
