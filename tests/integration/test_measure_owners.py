"""`isolcpus-dp measure` beside a kubelet that gives CPUs to containers.

A program in the place of oslat takes no samples: it says on which CPU it runs, and writes a result
when it is ended. The CPUs are those of a simulated machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.machine import regular
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, plain_environment
from tests.testbed.host import RESOURCE, Host, made_up_host
from tests.testbed.wait import until

TIMEOUT = 20  # seconds
ISOLATED = frozenset({1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15})

# Started as `oslat --cpu-list N ... --json FILE`. Its name in `loops` has its PID and its CPU.
OSLAT = """
import json, os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
cpu, result = (sys.argv[sys.argv.index(name) + 1] for name in ("--cpu-list", "--json"))
open(f"{loops}/{os.getpid()}-{cpu}", "w").close()
print("Test starts...", flush=True)
signal.sigwait([signal.SIGTERM])
thread = {"cpu": int(cpu), "max": 5, "duration": 1.0, "histogram": {"1": 1000, "5": 1}}
with open(result, "w") as file:
    json.dump({"thread": {"0": thread}}, file)
"""

# Runs before the command: no part of it depends on this machine's CPUs and on the user.
PRELUDE = """
import json, os
from pathlib import Path
from isolcpus_dp.measure import confinement, lock, oslat
from isolcpus_dp.measure.record.recorder import Recorder
from isolcpus_dp.measure.show import document
os.geteuid = lambda: 0
confinement.stay_on = lambda cpus: None
lock.FILE = Path("{directory}/lock")
oslat.threads_on = lambda proc, pid, cpu: {{pid}}
begin = Recorder.begin
def begin_and_say_so(recorder, cpus, loops):
    begin(recorder, cpus, loops)
    Path("{directory}/began").touch()
Recorder.begin = begin_and_say_so
document.as_json = lambda result, before=None: json.dumps(
    {{
        "measured": sorted(result.histograms),
        "watched": sorted(result.watched),
        "dropped": {{one.cpu: one.reason for one in result.dropped}},
    }}
)
"""


class Measurement:
    """The running command, and the loops that it has started."""

    def __init__(self, process: Process, directory: Path) -> None:
        self.process = process
        self._loops = directory / "loops"
        self._began = directory / "began"

    def running(self) -> frozenset[int]:
        """The CPUs on which a loop runs."""
        found = (path.name.split("-") for path in self._loops.iterdir())
        return frozenset(int(cpu) for pid, cpu in found if is_alive(int(pid)))

    async def until_running(self, cpus: Iterable[int]) -> None:
        """Waits until loops run on exactly these CPUs."""
        wanted = frozenset(cpus)
        await until(lambda: self.running() == wanted)

    async def interrupt(self) -> tuple[frozenset[int], dict[int, str]]:
        """Ends it as Ctrl-C does. The CPUs of its histograms; by dropped CPU, the reason."""
        await until(self._began.exists)
        self.process.send_signal(signal.SIGINT)
        stdout, stderr = await asyncio.wait_for(self.process.communicate(), TIMEOUT)
        assert b"interrupted after " in stderr
        assert self.running() == set()
        printed = json.loads(stdout)
        dropped = {int(cpu): reason for cpu, reason in printed["dropped"].items()}
        return frozenset(printed["measured"]), dropped


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def with_siblings(cpus: Iterable[int]) -> frozenset[int]:
    return frozenset(thread for cpu in cpus for thread in (cpu % 8, cpu % 8 + 8))


@contextlib.asynccontextmanager
async def measuring(host: Host, *more: str) -> AsyncIterator[Measurement]:
    bin_, loops = host.directory / "bin", host.directory / "loops"
    for directory in (bin_, loops):
        directory.mkdir(exist_ok=True)
    (host.directory / "began").unlink(missing_ok=True)
    program = bin_ / "oslat"
    program.write_text(f"#!{sys.executable} -IS\nloops = {str(loops)!r}\n{OSLAT}")
    program.chmod(0o755)
    environment = {**plain_environment(), "PATH": f"{bin_}:{os.environ['PATH']}"}
    environment["TMPDIR"] = str(host.directory)
    prelude = PRELUDE.format(directory=host.directory)
    words = host.command("measure", "--duration", "10m", "--json", *more, prelude=prelude)
    process = await asyncio.create_subprocess_exec(
        *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment
    )
    try:
        yield Measurement(process, host.directory)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@pytest.fixture
def host() -> Iterator[Host]:
    """2 NUMA nodes of 4 cores with 2 threads; three cores of each are isolated, such as 1,9."""
    with made_up_host(regular(2, 4, 2), ISOLATED) as host:
        yield host


async def admitted(kubelet: Kubelet, name: str, size: int) -> frozenset[int]:
    await kubelet.admit(Pod(name, {RESOURCE: size}))
    return frozenset(map(int, kubelet.held_by(name, RESOURCE)))


@pytest.mark.usefixtures("registered")
async def test_no_loop_runs_on_an_owned_cpu_while_pods_come_and_go(
    host: Host, kubelet: Kubelet
) -> None:
    """50 allocations. The next step follows when the loops on the given CPUs have ended."""
    await has_devices(kubelet, 12)
    # The sizes of pods; each is deleted when the second one after it was admitted.
    rounds = [
        (1, 2, 1, 4, 2, 1, 1, 2, 1, 2),
        (2, 2, 2, 1, 1, 1, 4, 2, 2, 1),
        (4, 2, 4, 2, 1, 2, 1, 2, 4, 1),
        (1, 1, 1, 1, 2, 2, 2, 2, 1, 1),
        (6, 2, 4, 6, 1, 1, 2, 4, 2, 2),
    ]
    held: dict[str, frozenset[int]] = {}
    for number, sizes in enumerate(rounds):
        owned_at_any_time = with_siblings(frozenset().union(*held.values()))
        async with measuring(host) as measurement:
            free = ISOLATED - owned_at_any_time
            await measurement.until_running(free)
            for step, size in enumerate(sizes):
                name = f"pod-{number}-{step}"
                held[name] = await admitted(kubelet, name, size)
                owned_at_any_time |= with_siblings(held[name])
                left = ISOLATED - owned_at_any_time
                await measurement.until_running(left)
                if len(held) > 2:
                    oldest = next(iter(held))
                    kubelet.delete(oldest)
                    del held[oldest]
            if not left:  # it ends on its own when no CPU is left
                await asyncio.wait_for(measurement.process.wait(), TIMEOUT)
                continue
            measured, dropped = await measurement.interrupt()
            assert measured == left
            assert dropped.keys() >= free - left
    assert len(kubelet.pods) == 2


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("early", range(3))
async def test_cpus_given_away_while_the_loops_start_have_no_result(
    host: Host, kubelet: Kubelet, early: int
) -> None:
    """The pods are admitted when 0, 4 and 8 loops have started."""
    await has_devices(kubelet, 12)
    async with measuring(host) as measurement:
        await until(lambda: len(measurement.running()) >= early * 4)
        owned = await admitted(kubelet, "forwarder", 2) | await admitted(kubelet, "camera", 1)
        left = ISOLATED - with_siblings(owned)
        await measurement.until_running(left)
        measured, _ = await measurement.interrupt()
        assert measured == left


@pytest.mark.usefixtures("registered")
async def test_dropped_cpus_are_named_with_their_owner(host: Host, kubelet: Kubelet) -> None:
    await has_devices(kubelet, 12)
    async with measuring(host, "--cpus", "1,2") as measurement:
        await measurement.until_running({1, 2})
        assert await admitted(kubelet, "forwarder", 2) == {1, 9}
        await measurement.until_running({2})
        measured, dropped = await measurement.interrupt()
        assert measured == {2}
        assert dropped.keys() == {1}
        assert dropped[1] in (
            "it was given to default/forwarder/main",
            "it was given to container main of the pod with UID forwarder",
        )


async def test_allocations_after_a_restart_of_the_kubelet_are_noticed(
    host: Host, kubelet: Kubelet, start_kubelet: StartKubelet, serving: object
) -> None:
    await has_devices(kubelet, 12)
    async with measuring(host) as measurement:
        await measurement.until_running(ISOLATED)
        await kubelet.stop()
        restarted = await start_kubelet()
        await has_devices(restarted, 12)
        owned = await admitted(restarted, "forwarder", 2)
        left = ISOLATED - with_siblings(owned)
        await measurement.until_running(left)
        measured, _ = await measurement.interrupt()
        assert measured == left


async def test_host_without_a_kubelet_is_measured_until_one_comes(
    host: Host, start_kubelet: StartKubelet, serving: object
) -> None:
    async with measuring(host) as measurement:
        await measurement.until_running(ISOLATED)
        kubelet = await start_kubelet()
        await has_devices(kubelet, 12)
        owned = await admitted(kubelet, "forwarder", 2)
        left = ISOLATED - with_siblings(owned)
        await measurement.until_running(left)
        measured, _ = await measurement.interrupt()
        assert measured == left


async def test_cpu_that_goes_offline_has_no_loop(host: Host) -> None:
    async with measuring(host) as measurement:
        await measurement.until_running(ISOLATED)
        host.machine.set_offline(3)
        await measurement.until_running(ISOLATED - {3})
        measured, dropped = await measurement.interrupt()
        assert measured == ISOLATED - {3}
        assert dropped == {3: "it went offline"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
async def test_no_loop_outlives_the_command(host: Host, number: signal.Signals) -> None:
    async with measuring(host) as measurement:
        await measurement.until_running(ISOLATED)
        measurement.process.send_signal(number)
        stdout, _ = await asyncio.wait_for(measurement.process.communicate(), TIMEOUT)
        assert stdout == b""
        await measurement.until_running(set())
