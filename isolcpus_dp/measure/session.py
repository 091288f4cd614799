"""One measurement, from the first busy loop to the result.

Its life:

1. The owners of CPUs are watched from the beginning to the end. A CPU that gets an owner is dropped
   at any moment: its loop is killed, and all that was measured on it is discarded. The same holds
   for the SMT siblings of such a CPU, and for a CPU that goes offline.
2. A loop is started for each CPU. A loop takes about a second until it measures. When all of them
   do, the recorder begins, for the measured and for the watched CPUs.
3. The session waits until the time is over, it is asked to end, or no CPU is left. A loop that ends
   in this time has failed, and its CPU is dropped.
4. The recorder ends. Only then the loops are stopped, so that what ends them is not recorded, and
   their histograms are read.
5. Whatever happens, no loop is left behind, and their files are removed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isolcpus_dp.measure import selection as selections
from isolcpus_dp.measure.activity import Recording
from isolcpus_dp.measure.oslat import OslatError
from isolcpus_dp.measure.result import Dropped, Histogram
from isolcpus_dp.service import process

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.measure.selection import Selection

_PROGRESS_SECONDS = 1.0


class Loop(Protocol):
    """A busy loop on one CPU; see `oslat.Loop`."""

    @property
    def pid(self) -> int: ...
    async def measuring(self) -> int: ...
    async def ended(self) -> str: ...
    async def stop(self) -> Histogram: ...
    def kill(self) -> None: ...
    async def gone(self) -> None: ...


class Recorder(Protocol):
    """Counts what happens on CPUs; see `record.recorder.Recorder`."""

    def ignore(self, pids: Iterable[int]) -> None: ...
    def begin(self, cpus: Iterable[int], loops: Mapping[int, int]) -> None: ...
    def end(self, cpus: Iterable[int]) -> None: ...
    def forget(self, cpus: Iterable[int]) -> None: ...
    def recording(self) -> Recording: ...


@dataclass(frozen=True)
class Progress:
    """How far a measurement is."""

    cpus: frozenset[int]  # still measured
    elapsed: float  # seconds
    seconds: float  # in total
    dropped: frozenset[int]


@dataclass(frozen=True)
class Measured:
    """What a measurement has found."""

    histograms: Mapping[int, Histogram]
    recording: Recording
    watched: frozenset[int]
    dropped: tuple[Dropped, ...]
    owners: Mapping[int, str]
    seconds: float  # less than was asked for if it was interrupted


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, for at most some seconds."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return


class Session:
    """The state of one measurement."""

    def __init__(
        self,
        machine: Machine,
        selection: Selection,
        recorder: Recorder,
        start: Callable[[int], Awaitable[Loop]],
        *,
        progress: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[asyncio.Event, float], Awaitable[None]] = wait,
    ) -> None:
        """`start` starts the loop of a CPU. `progress` is called once a second."""
        self._machine = machine
        self._selection = selection
        self._recorder = recorder
        self._start = start
        self._progress = progress
        self._clock = clock
        self._wait = wait
        self._loops: dict[int, Loop] = {}  # all that were started
        self._threads: dict[int, int] = {}  # TID by CPU, when the loop measures
        self._remaining = set(selection.measured)
        self._watched = set(selection.watched)
        self._reasons = {one.cpu: one.reason for one in selection.left_out}
        self._lost: dict[int, int] = {}  # the owned CPU, by the CPU that was dropped because of it
        self._owners = dict(selection.owners)
        self._recording: frozenset[int] = frozenset()
        self._changed = asyncio.Event()  # something that ends the wait may have happened
        self._is_over = False
        self._has_begun = False

    def stop(self) -> None:
        """Ends the measurement early, with what was measured so far."""
        self._is_over = True
        self._changed.set()

    def owned(self, owners: Mapping[int, str]) -> None:
        """Drops the CPUs that have got an owner; may be called again with other names."""
        for cpu, owner in owners.items():
            if cpu in self._remaining or cpu in self._lost:
                self._lost[cpu] = cpu
                self._owners[cpu] = owner
                self._drop(cpu, f"it was given to {owner}")
        for cpu, owner in owners.items():
            for near in selections.siblings(self._machine, cpu):
                if near in self._remaining or self._lost.get(near) == cpu:
                    self._lost[near] = cpu
                    self._drop(near, selections.beside_owner(cpu, owner))

    def online(self, cpus: frozenset[int]) -> None:
        """Drops CPUs that are offline: the kernel would run their loops on other CPUs."""
        for cpu in sorted((self._remaining | self._watched) - cpus):
            self._drop(cpu, "it went offline")

    def unwatched(self, reason: str) -> None:
        """Drops all measured CPUs: what changes is not noticed any more."""
        for cpu in sorted(self._remaining):
            self._drop(cpu, f"who owns it is not known any more: {reason}")

    def _drop(self, cpu: int, reason: str) -> None:
        self._reasons[cpu] = reason
        self._watched.discard(cpu)
        if cpu in self._remaining:
            self._remaining.discard(cpu)
            if cpu in self._loops:
                self._loops[cpu].kill()
        if cpu in self._recording:
            self._recording -= {cpu}
            self._recorder.forget([cpu])
        self._changed.set()

    async def run(self, seconds: float) -> Measured:
        """Measures for `seconds`. Raises OslatError if no loop can be started."""
        tasks: list[asyncio.Task[None]] = []
        try:
            for cpu in sorted(self._remaining):
                # It may have got an owner while the others were started.
                if cpu in self._remaining and not self._is_over:
                    tasks.append(await self._started(cpu))
            await self._until_all_measure()
            began = self._begin()
            await self._until_over(began, seconds)
            elapsed = self._clock() - began
            if self._recording:
                self._recorder.end(self._recording)
            await process.cancel(tasks)
            histograms = await self._stopped()
            recording = self._recorder.recording() if self._has_begun else Recording({})
        finally:
            await process.cancel(tasks)
            for loop in self._loops.values():
                loop.kill()
            for loop in self._loops.values():
                await loop.gone()
        return Measured(
            histograms,
            recording,
            frozenset(self._watched),
            tuple(Dropped(cpu, self._reasons[cpu]) for cpu in sorted(self._reasons)),
            self._owners,
            elapsed,
        )

    async def _started(self, cpu: int) -> asyncio.Task[None]:
        loop = await self._start(cpu)
        self._loops[cpu] = loop
        if cpu not in self._remaining:  # it got an owner at this moment
            loop.kill()
        return asyncio.create_task(self._attend(cpu, loop))

    async def _attend(self, cpu: int, loop: Loop) -> None:
        """Drops the CPU when its loop fails."""
        try:
            self._threads[cpu] = await loop.measuring()
            self._changed.set()
            reason = await loop.ended()
        except OslatError as error:
            reason = str(error)
        if cpu in self._remaining:
            self._drop(cpu, reason)

    async def _until_all_measure(self) -> None:
        while not self._is_over and self._remaining - self._threads.keys():
            self._changed.clear()
            await self._changed.wait()

    def _begin(self) -> float:
        """Begins to record; returns when."""
        if self._is_over:
            # Loops that are stopped before they measure have no result.
            for cpu in sorted(self._remaining - self._threads.keys()):
                self._drop(cpu, "the measurement ended before it began")
        self._recording = frozenset(self._remaining | self._watched)
        if self._recording:
            threads = {cpu: self._threads[cpu] for cpu in sorted(self._remaining)}
            self._recorder.ignore(
                {*threads.values(), *(self._loops[cpu].pid for cpu in threads)},
            )
            self._recorder.begin(self._recording, threads)
            self._has_begun = True
        return self._clock()

    async def _until_over(self, began: float, seconds: float) -> None:
        while self._recording and not self._is_over:
            elapsed = self._clock() - began
            if elapsed >= seconds:
                return
            if self._progress:
                self._progress(self._so_far(elapsed, seconds))
            self._changed.clear()
            left = seconds - elapsed
            await self._wait(
                self._changed, min(left, _PROGRESS_SECONDS) if self._progress else left
            )

    def _so_far(self, elapsed: float, seconds: float) -> Progress:
        dropped = frozenset(self._reasons) - {one.cpu for one in self._selection.left_out}
        return Progress(frozenset(self._remaining), elapsed, seconds, dropped)

    async def _stopped(self) -> dict[int, Histogram]:
        """Stops all loops at once. By CPU: the histogram of those that no one owns by then."""
        cpus: Collection[int] = sorted(self._remaining)
        ends = await asyncio.gather(
            *(self._loops[cpu].stop() for cpu in cpus), return_exceptions=True
        )
        histograms = {}
        for cpu, end in zip(cpus, ends):
            if cpu not in self._remaining:
                continue
            if isinstance(end, OslatError):
                self._drop(cpu, str(end))
            elif isinstance(end, BaseException):
                raise end
            else:
                histograms[cpu] = end
        return histograms
