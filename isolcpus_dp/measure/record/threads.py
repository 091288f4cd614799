"""Which threads ran on a CPU, and which functions its kernel workers executed."""

from __future__ import annotations

from collections.abc import Collection

from isolcpus_dp.host import files
from isolcpus_dp.measure.record.histogram import CPU, Tallies, Trigger

# The number of threads that run on all measured CPUs, including those that live for a moment.
_MOST_THREADS = 8192

SWITCHES = Trigger("sched/sched_switch", ("next_comm", CPU, "next_pid"), size=_MOST_THREADS)
WORKS = Trigger("workqueue/workqueue_execute_start", ("function.sym", CPU))

# The idle threads of all CPUs have this PID.
IDLE = 0


def ran(tallies: Tallies, ignored: Collection[int]) -> dict[str, int]:
    """By thread, how often the scheduler switched to it; without idle and ignored threads."""
    found: dict[str, int] = {}
    for (comm, pid), tally in tallies.items():
        if int(pid) == IDLE or int(pid) in ignored:
            continue
        named = name(comm, int(pid))
        found[named] = found.get(named, 0) + tally.hits
    return found


def works(tallies: Tallies) -> dict[str, int]:
    """By function, how often a kernel worker executed it."""
    return {function: tally.hits for (function,), tally in tallies.items()}


def comms(tallies: Tallies) -> dict[int, str]:
    """The names of threads by PID; of a thread that had several, the most frequent one."""
    most: dict[int, tuple[int, str]] = {}
    for (comm, pid), tally in tallies.items():
        most[int(pid)] = max(most.get(int(pid), (0, "")), (tally.hits, comm))
    return {pid: comm for pid, (_, comm) in most.items()}


def name(comm: str, pid: int) -> str:
    """A thread in words, as `backup/812`, or its own name if that has a slash: `kworker/3:1`.

    Any user can choose it, so what is not printable becomes `?`.
    """
    shown = files.printable(comm)
    return shown if "/" in shown else f"{shown}/{pid}"
