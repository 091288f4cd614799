"""What the kernel counts for a measuring thread. /proc/TID exists also for a thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.host import files
from isolcpus_dp.measure.activity import Loop


@dataclass(frozen=True)
class Counters:
    """The counters of one thread at one moment."""

    involuntary_switches: int
    minor_faults: int
    major_faults: int
    migrations: int | None  # None without CONFIG_SCHED_DEBUG


def read(proc: Path, tid: int) -> Counters | None:
    """The counters of a thread; None if it has ended. Raises Unseen."""
    directory = proc / str(tid)
    status = _fields(directory / "status")
    # The name in brackets may contain spaces and brackets. Field 3 is the first one after it
    # (proc_pid_stat(5)).
    stat = files.text(directory / "stat").rpartition(")")[2].split()
    switches = status.get("nonvoluntary_ctxt_switches", "")
    if len(stat) < 10 or not switches.isdecimal():
        return None
    migrations = _fields(directory / "sched").get("se.nr_migrations", "")
    return Counters(
        involuntary_switches=int(switches),
        minor_faults=int(stat[7]),
        major_faults=int(stat[9]),
        migrations=int(migrations) if migrations.isdecimal() else None,
    )


def grown(before: Counters, after: Counters) -> Loop:
    """What happened to the thread between two readings."""
    return Loop(
        involuntary_switches=after.involuntary_switches - before.involuntary_switches,
        migrations=(after.migrations or 0) - (before.migrations or 0),
        minor_faults=after.minor_faults - before.minor_faults,
        major_faults=after.major_faults - before.major_faults,
    )


def _fields(path: Path) -> dict[str, str]:
    """The lines `name: value` of a file."""
    pairs = (line.partition(":") for line in files.lines(path))
    return {key.strip(): value.strip() for key, _, value in pairs}
