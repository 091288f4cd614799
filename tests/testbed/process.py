"""Memory, context switches, processor time and open files of processes."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path


def memory(pid: int) -> dict[str, float]:
    """The memory of a process in MiB, by the names of /proc/PID/smaps_rollup, such as Rss."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {
        name: int(rest.split()[0]) / 1024 for name, _, rest in (x.partition(":") for x in lines)
    }


def context_switches(pid: int) -> int:
    """Voluntary and involuntary context switches of all threads of a process."""
    return sum(
        int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if "ctxt_switches" in line
    )


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process refer to, such as `socket:[4711]`."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just been closed
            found.append(os.fspath(descriptor.readlink()))
    return found


def tree_seconds(pid: int) -> float:
    """The processor time of a process, its running children, and those it has waited for."""
    seconds = 0.0
    for one in (pid, *children(pid)):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        # utime, stime, cutime and cstime of proc_pid_stat(5), in clock ticks.
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def children(pid: int) -> list[int]:
    return [
        int(child)
        for children in Path(f"/proc/{pid}/task").glob("*/children")
        for child in children.read_text().split()
    ]


def children_seconds() -> float:
    """The processor time of all children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
