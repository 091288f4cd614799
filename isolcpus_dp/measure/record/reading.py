"""One reading of all that is counted for every CPU at once, and the difference of two."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.activity import Activity
from isolcpus_dp.measure.record import counters, tracing

if TYPE_CHECKING:
    from isolcpus_dp.host.interrupts import Counts
    from isolcpus_dp.measure.record.roots import Roots
    from isolcpus_dp.measure.record.tracing import Tables, Tracing


@dataclass(frozen=True)
class Reading:
    """The counters of all CPUs at one moment."""

    seconds: float  # of the clock
    interrupts: Counts = field(default_factory=dict)
    softirqs: Counts = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    tables: Tables = field(default_factory=dict)


def take(
    roots: Roots, trace: Tracing, clock: Callable[[], float], unseen: Callable[[str], None]
) -> Reading:
    """Reads each file once. Calls `unseen` with a sentence for each that cannot be read."""

    def table(name: str) -> tuple[Counts, Mapping[str, str]]:
        try:
            return counters.read(roots.proc, name)
        except Unseen as reason:
            unseen(f"which {name} occurred is unknown: {reason}")
            return {}, {}

    seconds = clock()
    interrupts, devices = table("interrupts")
    softirqs, _ = table("softirqs")
    tables, incomplete = trace.read()
    for sentence in incomplete:
        unseen(sentence)
    return Reading(seconds, interrupts, softirqs, devices, tables)


def activity(before: Reading, after: Reading, cpu: int, ignored: Collection[int]) -> Activity:
    """What happened on a CPU between two readings, as far as every CPU's counters tell."""
    traced = tracing.traced(before.tables, after.tables, cpu, [*after.softirqs], ignored)
    return Activity(
        seconds=after.seconds - before.seconds,
        interrupts=counters.grown(before.interrupts, after.interrupts, cpu),
        softirqs=counters.grown(before.softirqs, after.softirqs, cpu),
        threads=traced.threads,
        works=traced.works,
        noises=traced.noises,
    )
