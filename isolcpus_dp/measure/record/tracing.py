"""What tracing adds to a recording: threads, functions of kernel workers, and noises.

Each of the three can fail for itself; the reason is then one sentence, and the others go on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.record import histogram, osnoise, threads, tracefs
from isolcpus_dp.measure.record.histogram import Table, Tallies, Trigger

if TYPE_CHECKING:
    from isolcpus_dp.measure.activity import Noise
    from isolcpus_dp.measure.record.roots import Roots

_TRIGGERS = (threads.SWITCHES, threads.WORKS, *osnoise.TRIGGERS.values())

_THREADS = "which threads ran on the CPUs is unknown"
_WORKS = "which functions kernel workers executed is unknown"
_ALL = "which threads and kernel workers ran on the CPUs is unknown"
_NOISES = "how long each thread, interrupt and softirq ran is unknown"

# One reading of all histograms that could be set up.
Tables = Mapping[Trigger, Table]


@dataclass(frozen=True)
class Traced:
    """What was traced on one CPU; None for what could not be."""

    threads: Mapping[str, int] | None
    works: Mapping[str, int] | None
    noises: tuple[Noise, ...] | None


class Tracing:
    """The life of the trace instance."""

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        self._instance = tracefs.Instance(roots.tracefs)
        self._counted: list[Trigger] = []

    def start(self, cpus: frozenset[int], online: frozenset[int]) -> list[str]:
        """Counts on these CPUs from now on. Returns a sentence for each kind that cannot be."""
        self.stop()  # what an earlier measurement left, which was killed
        try:
            self._instance.make()
        except Unseen as reason:
            return [f"{_ALL}: {reason}"]
        unseen = []
        for trigger, lost in ((threads.SWITCHES, _THREADS), (threads.WORKS, _WORKS)):
            try:
                self._instance.add(trigger, cpus, online)
            except Unseen as reason:
                unseen.append(f"{lost}: {reason}")
            else:
                self._counted.append(trigger)
        try:
            osnoise.start(self._roots, self._instance, cpus, online)
        except Unseen as reason:
            unseen.append(f"{_NOISES}: {reason}")
            self._instance.stop_tracer()
            osnoise.restore(self._roots)
        else:
            self._counted += osnoise.TRIGGERS.values()
        return unseen

    def stop(self) -> None:
        """Removes the instance, and restores settings of the kernel."""
        self._counted = []
        self._instance.remove(_TRIGGERS)
        osnoise.restore(self._roots)

    def read(self) -> tuple[Tables, list[str]]:
        """The histograms at this moment, and a sentence for each that cannot be read or is full."""
        tables, unseen = {}, []
        for trigger in self._counted:
            try:
                tables[trigger] = self._instance.read(trigger)
            except Unseen as reason:
                unseen.append(f"a histogram is unknown: {reason}")
                continue
            if tables[trigger].dropped:
                unseen.append(
                    f"some events of {trigger.event.replace('/', ':')} were not counted: more than"
                    f" {trigger.size} different ones occurred"
                )
        return tables, unseen


def traced(
    before: Tables,
    after: Tables,
    cpu: int,
    softirqs: Sequence[str],
    ignored: Collection[int],
) -> Traced:
    """What was traced on a CPU between two readings. `softirqs` has their names by number."""
    grown: dict[Trigger, Tallies] = {
        trigger: histogram.grown(before[trigger], table, cpu)
        for trigger, table in after.items()
        if trigger in before
    }
    switches = grown.get(threads.SWITCHES)
    works = grown.get(threads.WORKS)
    noises = {
        source: grown[trigger] for source, trigger in osnoise.TRIGGERS.items() if trigger in grown
    }
    # All of them, because a thread that is switched off may have been switched to before.
    ran = after[threads.SWITCHES].by_cpu.get(cpu, {}) if threads.SWITCHES in after else {}
    return Traced(
        threads=None if switches is None else threads.ran(switches, ignored),
        works=None if works is None else threads.works(works),
        noises=osnoise.noises(noises, threads.comms(ran), softirqs, ignored) if noises else None,
    )
