"""Restarts a kubelet or runtime many times beside a daemon, and collects what happened."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.simulator.supervisor import Run, Supervisor
from tests.testbed.host import Host
from tests.testbed.load import busy_loops
from tests.testbed.process import children
from tests.testbed.storm.holdings import Holdings, Memory, held, memory_of
from tests.testbed.storm.peer import Peer, load
from tests.testbed.storm.plan import KUBELET, RUNTIME, Moments, Restart, Round

# How long a process may take to hold no more than after the first round.
_SETTLE_SECONDS = 2.0
# gRPC has a thread or a connection more in some workers, from their start.
_VARIATION = {("worker", "threads"): 2, ("worker", "descriptors"): 2}


@dataclass(frozen=True)
class Subject:
    """A daemon and what is restarted beside it."""

    module: str  # of the process that is restarted
    arguments: tuple[str, ...]
    log: Path  # what it writes to its standard error
    moments: Moments
    processes: Callable[[Run], Mapping[str, int]]  # by name: the pids of the daemon
    doing: Callable[[Run, float], str]  # what the daemon did at this time
    # What a long storm meets: what the daemon does at a socket, as `doing` calls it, and the calls
    # in the middle of which the other process ends.
    states: tuple[str, ...]
    calls: tuple[str, ...]


def device_plugin(host: Host) -> Subject:
    """The device plugin and its kubelet."""
    devices = len(machine.read(host.machine.root).isolated)
    arguments = (str(host.kubelet_dir), str(host.containers), str(devices))
    return Subject(
        "kubelet",
        arguments,
        host.directory / "kubelet-log",
        KUBELET,
        _main_and_worker,
        _doing,
        ("forking", "before serving", "waiting"),
        ("Register", "ListAndWatch", "Allocate"),
    )


def pinning_daemon(host: Host) -> Subject:
    """The pinning daemon and its runtime. Two of the isolated CPUs have an owner."""
    present = machine.read(host.machine.root)
    own = sorted(present.isolated)[:2]
    others = present.online - present.isolated
    arguments = (str(host.nri_socket), cpulist.render(own), cpulist.render(others))
    return Subject(
        "runtime",
        arguments,
        host.directory / "runtime-log",
        RUNTIME,
        lambda run: {"daemon": _main(run)},
        lambda *_: "running",
        ("running",),
        ("Configure", "Synchronize", "StateChange", "CreateContainer"),
    )


@dataclass(frozen=True)
class Sample:
    """What a process holds after a round."""

    holdings: Holdings
    memory: Memory


@dataclass
class Record:
    """What happened in a storm."""

    healthy: list[float] = field(default_factory=list)  # seconds from the socket
    apart: list[float] = field(default_factory=list)  # seconds from an end to the next socket
    starts: Counter[str] = field(default_factory=Counter)  # what the daemon did at the socket
    ends: Counter[tuple[str, str]] = field(default_factory=Counter)  # by signal and last event
    samples: list[Mapping[str, Sample]] = field(default_factory=list)  # of each round, by process
    failures: list[str] = field(default_factory=list)  # sentences

    @property
    def restarts(self) -> int:
        return sum(self.ends.values())


class Storm:
    """Restarts beside a running daemon; `record` has the outcome so far."""

    def __init__(self, subject: Subject, daemon: Supervisor) -> None:
        self.record = Record()
        self._subject = subject
        self._daemon = daemon
        self._staying: Peer | None = None
        self._ended: float | None = None  # time.monotonic() of the last end

    async def run(self, rounds: Iterable[Round], within: float) -> None:
        """Runs all rounds. Devices or pins that take longer than `within` seconds are a failure."""
        try:
            for one in rounds:
                async with _loaded(self._subject, one.restarts) as peers:
                    with busy_loops(one.busy_loops):
                        for peer in peers:
                            await self._restart(peer, within)
                    await self._sample()
                    # The next round ends it: until then, a load of many processes disturbs nothing.
                    peers.remove(peers[-1])
        finally:
            await self._end_staying()

    async def _restart(self, peer: Peer, within: float) -> None:
        await self._end_staying()
        await asyncio.sleep(peer.restart.apart)
        peer.go()
        if await peer.until(lambda: "bound" in peer.events):
            self._started(peer)
        stays = not peer.restart.moment
        if stays:
            self._staying = peer
        is_idle = await peer.until(lambda: stays and "idle" in peer.events)
        if not (is_idle if stays else peer.has_ended):
            self._failed(peer, "this has not happened within 20 s")
        if not stays:
            await peer.end()
            self._count(peer)
        self._judge(peer, within)

    async def _end_staying(self) -> None:
        if self._staying:
            peer, self._staying = self._staying, None
            await peer.end()
            self._count(peer)
            await peer.remove()

    def _started(self, peer: Peer) -> None:
        bound = peer.events["bound"]
        if self._ended:
            self.record.apart.append(bound - self._ended)
        self.record.starts[self._subject.doing(self._daemon.current, bound)] += 1

    def _count(self, peer: Peer) -> None:
        self._ended = time.monotonic()
        self.record.ends[peer.restart.number.name, peer.last] += 1

    def _judge(self, peer: Peer, within: float) -> None:
        if healthy := peer.events.get("healthy"):
            seconds = healthy - peer.events["bound"]
            self.record.healthy.append(seconds)
            if seconds > within:
                self._failed(peer, f"healthy only {seconds:.3f} s after the socket")
        elif reached := peer.events.get(peer.restart.moment):
            # It ended before it was healthy.
            seconds = reached - peer.events["bound"]
            if seconds > within:
                self._failed(peer, f"{peer.restart.moment} only {seconds:.3f} s after the socket")
        for event in peer.events:
            if event.startswith("wrong"):
                self._failed(peer, event)

    def _failed(self, peer: Peer, what: str) -> None:
        number = self.record.restarts + 1
        self.record.failures.append(f"{number}: {what}; {peer.restart}; last: {peer.last}")

    async def _sample(self) -> None:
        """Samples the processes when they hold no more than in the first round, or after 2 s."""
        first = self.record.samples[0] if self.record.samples else {}
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            await asyncio.sleep(0.5)  # what it does after a registration, such as logging it
            pids = self._subject.processes(self._daemon.current)
            sample = {name: Sample(held(pid), memory_of(pid)) for name, pid in pids.items()}
            holds_more = any(
                sample[name].holdings.exceed(one.holdings) for name, one in first.items()
            )
            if not holds_more or time.monotonic() > deadline:
                break
        self.record.samples.append(sample)


@contextlib.asynccontextmanager
async def _loaded(subject: Subject, restarts: Iterable[Restart]) -> AsyncIterator[list[Peer]]:
    """Processes that wait until they are to start; those still in the list are removed."""
    peers = await asyncio.gather(
        *(load(subject.module, one, subject.arguments, subject.log) for one in restarts)
    )
    try:
        yield peers
    finally:
        for peer in peers:
            await peer.remove()


def not_met(subject: Subject, record: Record) -> list[str]:
    """What a long storm meets, and this one has not, as sentences."""
    states = [
        f"no {subject.module}'s socket was created while the daemon was {state}"
        for state in subject.states
        if not record.starts[state]
    ]
    last = {event for _, event in record.ends}
    calls = [
        f"no {subject.module} ended in the middle of {call}"
        for call in subject.calls
        if call not in last
    ]
    return states + calls


def growth(samples: Sequence[Mapping[str, Sample]], mib: float) -> list[str]:
    """What a process holds more of in the last third of the samples, as sentences.

    The least of the last third is compared with the most of the first third. Of anonymous memory,
    it is the least of both thirds, as that grows between two runs of Python's garbage collector.
    """
    third = -(-len(samples) // 3)
    found = []
    for name in samples[0]:
        early, late = ([one[name] for one in part] for part in (samples[:third], samples[-third:]))
        for what in ("threads", "descriptors", "watches"):
            before = max(getattr(one.holdings, what) for one in early)
            after = min(getattr(one.holdings, what) for one in late)
            if after > before + _VARIATION.get((name, what), 0):
                found.append(f"the {name} holds at least {after} {what}; at first at most {before}")
        least, now = (min(one.memory.anonymous for one in part) for part in (early, late))
        if now > least + mib:
            found.append(f"the anonymous memory of the {name} grew by {now - least:.2f} MiB")
    return found


def left_behind(host: Host, pids: Iterable[int]) -> list[str]:
    """What a daemon that has stopped left: processes, and files in the kubelet's directory."""
    processes = [f"process {pid}" for pid in pids if Path(f"/proc/{pid}").exists()]
    own = (host.device_plugins / ".isolcpus-dp", host.endpoint, host.directory / "run")
    return processes + [str(path) for path in own if path.exists()]


def _main(run: Run) -> int:
    assert run.pid
    return run.pid


def _main_and_worker(run: Run) -> Mapping[str, int]:
    return {"main process": _main(run), "worker": run.workers[-1].pid}


def _doing(run: Run, at: float) -> str:
    """What the device plugin did when a kubelet created its socket, as seen a moment later."""
    running = [pid for pid in children(_main(run)) if not _is_zombie(pid)]
    worker = next((one for one in run.notifiers if one.pid in running), None)
    if not running:
        return "forking"
    if worker is None or not worker.ready or worker.ready > at:
        return "before serving"
    if worker.registered and worker.registered < at:
        return "not yet ended"
    return "waiting"


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
