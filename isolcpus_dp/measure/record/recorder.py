"""Records what happens on CPUs while they are measured, for `session`.

The life of a recorder: entering it sets up tracing, before any CPU is measured, because that
interrupts all CPUs once. `begin` takes a first reading of every counter, `end` the second one;
nothing runs in between. `recording` subtracts them. Leaving it removes all that was set up. What
cannot be read is a sentence in the recording, and never an exception.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.activity import Activity, Recording
from isolcpus_dp.measure.record import frequency, loop, reading, smi
from isolcpus_dp.measure.record.tracing import Tracing

if TYPE_CHECKING:
    from types import TracebackType

    from isolcpus_dp.measure.record.loop import Counters
    from isolcpus_dp.measure.record.reading import Reading
    from isolcpus_dp.measure.record.roots import Roots

_SMIS = "how many SMIs there were is unknown"


@dataclass(frozen=True)
class _Moment:
    """What is known about one CPU at one of the two readings."""

    reading: Reading
    loop: Counters | None
    megahertz: int | None
    smis: int | None


class Recorder:
    """Records some CPUs, each from its `begin` to its `end`.

    `candidates` are the CPUs that may be measured or watched: tracing leaves out others. `own_cpu`
    is one on which nothing is measured; by default one of those on which this process may run.
    """

    def __init__(
        self,
        roots: Roots,
        online: frozenset[int],
        clock: Callable[[], float] = time.monotonic,
        *,
        candidates: frozenset[int] | None = None,
        own_cpu: int | None = None,
    ) -> None:
        self._roots = roots
        self._online = online
        self._clock = clock
        self._candidates = online if candidates is None else candidates
        self._own_cpu = own_cpu
        self._tracing = Tracing(roots)
        self._has_smis = False
        self._ignored: set[int] = set()
        self._loops: dict[int, int] = {}
        self._first: dict[int, _Moment] = {}
        self._last: dict[int, _Moment] = {}
        self._unseen: dict[str, None] = {}  # sentences, in order and each once

    def __enter__(self) -> Recorder:
        try:
            sentences = self._tracing.start(self._candidates, self._online)
        except BaseException:
            self._tracing.stop()  # Python calls __exit__ only after __enter__ has returned
            raise
        for sentence in sentences:
            self._note(sentence)
        try:
            smi.require(self._roots.proc)
        except Unseen as reason:
            self._note(f"{_SMIS}: {reason}")
        else:
            self._has_smis = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tracing.stop()

    def ignore(self, pids: Iterable[int]) -> None:
        """Threads of the measurement itself, which are never reported."""
        self._ignored.update(pids)

    def begin(self, cpus: Iterable[int], loops: Mapping[int, int]) -> None:
        """Begins to record CPUs. `loops` has the TID of the measuring thread by CPU.

        A CPU without one is only watched: nothing is read that could interrupt it.
        """
        begun = list(cpus)
        for cpu in begun:
            self._loops.pop(cpu, None)
            self._last.pop(cpu, None)
        self._loops.update({cpu: loops[cpu] for cpu in begun if cpu in loops})
        smis = self._smis() if begun else None
        megahertz = {cpu: self._megahertz(cpu) for cpu in begun}
        counted = {cpu: self._loop(cpu) for cpu in begun}
        # Last, so that it does not count what the others caused.
        taken = self._read()
        for cpu in begun:
            self._first[cpu] = _Moment(taken, counted[cpu], megahertz[cpu], smis)

    def end(self, cpus: Iterable[int]) -> None:
        """Takes the second reading for CPUs that began."""
        ended = [cpu for cpu in cpus if cpu in self._first]
        if not ended:
            return
        taken = self._read()
        counted = {cpu: self._loop(cpu) for cpu in ended}
        smis = self._smis()
        for cpu in ended:
            self._last[cpu] = _Moment(taken, counted[cpu], self._megahertz(cpu), smis)

    def forget(self, cpus: Iterable[int]) -> None:
        """Drops CPUs: they are not in the recording, and nothing more is read for them."""
        for cpu in cpus:
            for known in (self._first, self._last, self._loops):
                known.pop(cpu, None)

    def recording(self) -> Recording:
        """The activity of all CPUs that began and ended."""
        activities = {cpu: self._activity(cpu) for cpu in sorted(self._last)}
        fired = {line for activity in activities.values() for line in activity.interrupts}
        devices = {
            line: name
            for moment in self._last.values()
            for line, name in moment.reading.devices.items()
            if line in fired
        }
        return Recording(activities, devices, tuple(self._unseen))

    def _activity(self, cpu: int) -> Activity:
        first, last = self._first[cpu], self._last[cpu]
        smis = None
        if first.smis is not None and last.smis is not None:
            smis = last.smis - first.smis
        frequencies = [moment.megahertz for moment in (first, last) if moment.megahertz is not None]
        return replace(
            reading.activity(first.reading, last.reading, cpu, self._ignored),
            loop=loop.grown(first.loop, last.loop) if first.loop and last.loop else None,
            frequency_mhz=(min(frequencies), max(frequencies)) if frequencies else None,
            smis=smis,
        )

    def _read(self) -> Reading:
        return reading.take(self._roots, self._tracing, self._clock, self._note)

    def _loop(self, cpu: int) -> Counters | None:
        if cpu not in self._loops:
            return None
        try:
            counted = loop.read(self._roots.proc, self._loops[cpu])
        except Unseen as reason:
            self._note(f"what happened to the measuring threads is unknown: {reason}")
            return None
        if counted is None:
            self._note(f"what happened to the measuring thread of CPU {cpu} is unknown: it ended")
        elif counted.migrations is None:
            self._note(
                "whether the measuring threads migrated is unknown: the kernel has no"
                " /proc/PID/sched (CONFIG_SCHED_DEBUG)"
            )
        return counted

    def _megahertz(self, cpu: int) -> int | None:
        if cpu not in self._loops:
            return None
        try:
            found = frequency.read(self._roots.sysfs, cpu)
        except Unseen as reason:
            self._note(f"the frequency of the CPUs is unknown: {reason}")
            return None
        if found is None:
            self._note("the frequency of the CPUs is unknown: the kernel has no driver for it")
        return found

    def _smis(self) -> int | None:
        if not self._has_smis:
            return None
        try:
            return smi.count(self._roots.dev, self._smi_cpu())
        except Unseen as reason:
            self._note(f"{_SMIS}: {reason}")
            return None

    def _smi_cpu(self) -> int:
        if self._own_cpu is not None:
            return self._own_cpu
        allowed = os.sched_getaffinity(0)
        return min((allowed & self._online) - self._candidates or allowed)

    def _note(self, sentence: str) -> None:
        self._unseen[sentence] = None
