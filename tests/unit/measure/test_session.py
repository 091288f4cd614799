"""One measurement: its loops, and CPUs that are dropped.

The machine has 4 cores with 2 threads; CPU 4 is the sibling of 0. CPUs 1-3 and 5-7 are isolated.
The loops and the recorder write what is done with them to one log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import pytest

from isolcpus_dp.host import cpulist
from isolcpus_dp.measure.activity import Activity, Recording
from isolcpus_dp.measure.oslat import OslatError
from isolcpus_dp.measure.result import Dropped, Histogram
from isolcpus_dp.measure.selection import select
from isolcpus_dp.measure.session import Measured, Progress, Session
from isolcpus_dp.simulator.machine import described, regular

MACHINE = described(regular(1, 4, 2), {1, 2, 3, 5, 6, 7})
HISTOGRAM = Histogram({1: 1000, 9: 1}, 8.5, 60.0)
FORWARDER = "default/forwarder/main"


async def others_wait() -> None:
    """Lets all other tasks run until they wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeLoop:
    """Measures at once, unless a test keeps it from that."""

    def __init__(self, cpu: int, log: list[str]) -> None:
        self.cpu = cpu
        self.pid = 100 + cpu
        self.log = log
        self.ready = asyncio.Event()
        self.ready.set()
        self.failure = ""
        self.failed = asyncio.Event()
        self.killed = False
        self.on_stop: Callable[[], None] = lambda: None
        self.end: Histogram | OslatError = HISTOGRAM

    async def measuring(self) -> int:
        await self.ready.wait()
        return 200 + self.cpu

    async def ended(self) -> str:
        await self.failed.wait()
        return self.failure

    async def stop(self) -> Histogram:
        self.log.append(f"stop {self.cpu}")
        self.on_stop()
        if isinstance(self.end, OslatError):
            raise self.end
        return self.end

    def kill(self) -> None:
        self.killed = True

    async def gone(self) -> None:
        self.log.append(f"gone {self.cpu}")

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.failed.set()


class FakeRecorder:
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.cpus: set[int] = set()
        self.ignored: set[int] = set()
        self.loops: Mapping[int, int] = {}

    def ignore(self, pids: Iterable[int]) -> None:
        self.ignored |= set(pids)

    def begin(self, cpus: Iterable[int], loops: Mapping[int, int]) -> None:
        self.cpus |= set(cpus)
        self.loops = loops
        self.log.append(f"begin {cpulist.render(self.cpus)}")

    def end(self, cpus: Iterable[int]) -> None:
        self.log.append(f"end {cpulist.render(cpus)}")

    def forget(self, cpus: Iterable[int]) -> None:
        self.cpus -= set(cpus)
        self.log.append(f"forget {cpulist.render(cpus)}")

    def recording(self) -> Recording:
        return Recording({cpu: Activity(60.0) for cpu in sorted(self.cpus)})


class Bench:
    """A session with loops that do nothing, whose time passes when nothing else happens."""

    def __init__(
        self,
        listed: str | None = "1-3",
        owners: Mapping[int, str] | None = None,
        *,
        watch_owned: bool = False,
    ) -> None:
        self.log: list[str] = []
        self.loops: dict[int, FakeLoop] = {}
        self.recorder = FakeRecorder(self.log)
        self.now = 0.0
        # By time: what happens then.
        self.events: dict[float, Callable[[], None]] = {}
        self.prepare: Callable[[FakeLoop], None] = lambda loop: None
        self.progress: list[Progress] = []
        chosen = select(MACHINE, owners or {}, listed, watch_owned=watch_owned)
        self.session = Session(
            MACHINE,
            chosen,
            self.recorder,
            self.start,
            progress=self.progress.append,
            clock=lambda: self.now,
            wait=self.wait,
        )

    async def start(self, cpu: int) -> FakeLoop:
        self.loops[cpu] = FakeLoop(cpu, self.log)
        self.prepare(self.loops[cpu])
        return self.loops[cpu]

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self.now += seconds
        self.events.pop(self.now, lambda: None)()
        await others_wait()

    async def run(self) -> Measured:
        return await self.session.run(60)

    @property
    def killed(self) -> set[int]:
        return {cpu for cpu, loop in self.loops.items() if loop.killed}


async def test_recording_ends_before_the_loops_are_stopped() -> None:
    bench = Bench()
    measured = await bench.run()
    assert bench.log == [
        *("begin 1-3", "end 1-3", "stop 1", "stop 2", "stop 3", "gone 1", "gone 2", "gone 3")
    ]
    assert measured.histograms == {1: HISTOGRAM, 2: HISTOGRAM, 3: HISTOGRAM}
    assert list(measured.recording.activities) == [1, 2, 3]
    assert measured.dropped == ()
    assert measured.watched == set()
    assert measured.seconds == 60


async def test_recorder_knows_the_threads_of_the_loops() -> None:
    bench = Bench()
    await bench.run()
    assert bench.recorder.loops == {1: 201, 2: 202, 3: 203}
    assert bench.recorder.ignored == {101, 102, 103, 201, 202, 203}


async def test_recording_begins_when_all_loops_measure() -> None:
    bench = Bench()
    bench.prepare = lambda loop: loop.ready.clear()
    running = asyncio.create_task(bench.run())
    await others_wait()
    for cpu in (1, 3):
        bench.loops[cpu].ready.set()
    await others_wait()
    assert bench.log == []
    bench.loops[2].ready.set()
    await running
    assert bench.log[0] == "begin 1-3"


async def test_cpu_that_gets_an_owner_is_killed_and_forgotten() -> None:
    bench = Bench()
    bench.events[20] = lambda: bench.session.owned({2: FORWARDER, 6: "default/other/main"})
    measured = await bench.run()
    assert bench.log[:3] == ["begin 1-3", "forget 2", "end 1,3"]
    assert "stop 2" not in bench.log
    assert measured.histograms.keys() == {1, 3}
    assert list(measured.recording.activities) == [1, 3]
    assert measured.dropped == (Dropped(2, f"it was given to {FORWARDER}"),)
    assert measured.owners == {2: FORWARDER}


async def test_loop_is_killed_before_the_call_returns() -> None:
    bench = Bench()
    killed = []

    def own() -> None:
        bench.session.owned({2: FORWARDER})
        killed.append(bench.killed)

    bench.events[20] = own
    await bench.run()
    assert killed == [{2}]


async def test_sibling_of_a_cpu_that_gets_an_owner_is_dropped() -> None:
    bench = Bench()
    bench.events[20] = lambda: bench.session.owned({6: FORWARDER})
    measured = await bench.run()
    assert measured.histograms.keys() == {1, 3}
    assert measured.dropped == (
        Dropped(
            2,
            f"its SMT sibling, CPU 6, is owned by {FORWARDER}, whom a busy loop would slow down",
        ),
    )


async def test_both_threads_of_a_core_are_given_to_the_owner() -> None:
    bench = Bench(None)
    bench.events[20] = lambda: bench.session.owned({2: FORWARDER, 6: FORWARDER})
    measured = await bench.run()
    assert measured.histograms.keys() == {1, 3, 5, 7}
    assert measured.dropped == (
        Dropped(2, f"it was given to {FORWARDER}"),
        Dropped(6, f"it was given to {FORWARDER}"),
    )


async def test_name_of_the_owner_replaces_the_one_in_the_checkpoint() -> None:
    bench = Bench()
    bench.events[20] = lambda: bench.session.owned({2: "container main of the pod with UID 1"})
    bench.events[21] = lambda: bench.session.owned({2: FORWARDER})
    measured = await bench.run()
    assert measured.dropped == (Dropped(2, f"it was given to {FORWARDER}"),)
    assert measured.owners == {2: FORWARDER}
    assert bench.log.count("forget 2") == 1


async def test_cpu_that_gets_an_owner_before_its_loop_starts_has_none() -> None:
    bench = Bench()
    bench.session.owned({2: FORWARDER})
    measured = await bench.run()
    assert bench.loops.keys() == {1, 3}
    assert measured.histograms.keys() == {1, 3}


async def test_cpu_that_gets_an_owner_while_its_loop_starts_is_dropped() -> None:
    bench = Bench()
    bench.prepare = lambda loop: bench.session.owned({2: FORWARDER} if loop.cpu == 2 else {})
    measured = await bench.run()
    assert 2 in bench.killed
    assert bench.log[0] == "begin 1,3"
    assert measured.histograms.keys() == {1, 3}


async def test_cpu_that_gets_an_owner_while_the_loops_stop_has_no_result() -> None:
    bench = Bench()

    def prepare(loop: FakeLoop) -> None:
        loop.on_stop = lambda: bench.session.owned({2: FORWARDER} if loop.cpu == 3 else {})

    bench.prepare = prepare
    measured = await bench.run()
    assert measured.histograms.keys() == {1, 3}
    assert list(measured.recording.activities) == [1, 3]


async def test_cpu_that_goes_offline_is_dropped() -> None:
    bench = Bench()
    bench.events[20] = lambda: bench.session.online(MACHINE.online - {3})
    measured = await bench.run()
    assert measured.dropped == (Dropped(3, "it went offline"),)
    assert 3 in bench.killed


async def test_cpus_are_dropped_when_their_owners_are_not_watched() -> None:
    bench = Bench("1-2")
    bench.events[20] = lambda: bench.session.unwatched("no descriptors are left")
    measured = await bench.run()
    assert bench.killed == {1, 2}
    assert measured.histograms == {}
    assert measured.dropped == (
        Dropped(1, "who owns it is not known any more: no descriptors are left"),
        Dropped(2, "who owns it is not known any more: no descriptors are left"),
    )


async def test_loop_that_ends_early_drops_its_cpu() -> None:
    bench = Bench()
    bench.events[20] = lambda: bench.loops[1].fail("oslat ended by signal 11")
    measured = await bench.run()
    assert measured.dropped == (Dropped(1, "oslat ended by signal 11"),)
    assert bench.log[:3] == ["begin 1-3", "forget 1", "end 2-3"]


async def test_loop_that_never_measures_drops_its_cpu() -> None:
    class Broken(FakeLoop):
        async def measuring(self) -> int:
            raise OslatError("oslat did not begin to measure within 10 s")

    bench = Bench()

    async def start(cpu: int) -> FakeLoop:
        loop = (Broken if cpu == 1 else FakeLoop)(cpu, bench.log)
        bench.loops[cpu] = loop
        return loop

    session = Session(
        MACHINE,
        select(MACHINE, {}, "1-3"),
        bench.recorder,
        start,
        clock=lambda: bench.now,
        wait=bench.wait,
    )
    measured = await session.run(60)
    assert measured.dropped == (Dropped(1, "oslat did not begin to measure within 10 s"),)
    assert measured.histograms.keys() == {2, 3}


async def test_loop_without_a_result_drops_its_cpu() -> None:
    bench = Bench()

    def prepare(loop: FakeLoop) -> None:
        if loop.cpu == 1:
            loop.end = OslatError("oslat did not end within 10 s")

    bench.prepare = prepare
    measured = await bench.run()
    assert measured.dropped == (Dropped(1, "oslat did not end within 10 s"),)
    assert list(measured.recording.activities) == [2, 3]


async def test_measurement_ends_when_no_cpu_is_left() -> None:
    bench = Bench()
    bench.events[20] = lambda: bench.session.owned(dict.fromkeys((1, 2, 3), FORWARDER))
    measured = await bench.run()
    assert (bench.now, measured.seconds) == (20, 20)
    assert measured.histograms == {}
    assert [one.cpu for one in measured.dropped] == [1, 2, 3]


async def test_measurement_that_is_stopped_has_what_was_measured_so_far() -> None:
    bench = Bench()
    bench.events[20] = bench.session.stop
    measured = await bench.run()
    assert measured.seconds == 20
    assert measured.histograms.keys() == {1, 2, 3}


async def test_measurement_that_is_stopped_before_it_begins_has_no_result() -> None:
    bench = Bench()

    def prepare(loop: FakeLoop) -> None:
        loop.ready.clear()
        bench.session.stop()

    bench.prepare = prepare
    measured = await bench.run()
    assert bench.loops.keys() == {1}  # no other loop was started
    assert (measured.histograms, measured.recording) == ({}, Recording({}))
    assert {one.reason for one in measured.dropped} == {"the measurement ended before it began"}


async def test_watched_cpu_is_recorded_without_a_loop() -> None:
    bench = Bench("2-3,6-7", {2: FORWARDER, 6: FORWARDER}, watch_owned=True)
    measured = await bench.run()
    assert bench.loops.keys() == {3, 7}
    assert bench.log[:2] == ["begin 2-3,6-7", "end 2-3,6-7"]
    assert bench.recorder.loops == {3: 203, 7: 207}
    assert measured.watched == {2, 6}
    assert measured.histograms.keys() == {3, 7}
    assert measured.dropped == ()


async def test_watched_cpu_that_goes_offline_is_dropped() -> None:
    bench = Bench("2,6", {2: FORWARDER, 6: FORWARDER}, watch_owned=True)
    bench.events[20] = lambda: bench.session.online(MACHINE.online - {6})
    measured = await bench.run()
    assert measured.watched == {2}
    assert measured.dropped == (Dropped(6, "it went offline"),)


async def test_cpus_left_out_are_among_the_dropped_ones() -> None:
    bench = Bench(None, {2: FORWARDER})
    measured = await bench.run()
    assert [one.cpu for one in measured.dropped] == [6]
    assert bench.progress[0].dropped == set()


async def test_progress_is_told_once_a_second() -> None:
    bench = Bench()
    bench.events[1] = lambda: bench.session.owned({2: FORWARDER})
    await bench.run()
    assert len(bench.progress) == 60
    assert bench.progress[:2] == [
        Progress(frozenset({1, 2, 3}), 0, 60, frozenset()),
        Progress(frozenset({1, 3}), 1, 60, frozenset({2})),
    ]


async def test_loops_end_when_one_cannot_be_started() -> None:
    bench = Bench()

    def prepare(loop: FakeLoop) -> None:
        if loop.cpu == 3:
            raise OslatError("could not run /usr/bin/setpriv: Resource temporarily unavailable")

    bench.prepare = prepare
    with pytest.raises(OslatError, match=r"^could not run"):
        await bench.run()
    assert bench.killed == {1, 2}
    assert bench.log == ["gone 1", "gone 2"]
