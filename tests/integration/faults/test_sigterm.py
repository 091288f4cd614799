"""SIGTERM at every await: at the end of each iteration of a daemon's event loop.

Between two iterations all tasks are suspended, and a signal is handled only there. The first run is
asked to stop after its first iteration, the next one after its second, and so on, until a run is
over before.
"""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from isolcpus_dp.service import process
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.supervisor import Supervisor, Worker
from tests.integration.pin.conftest import StartRuntime, start_runtime
from tests.testbed.daemon import is_registered, plain_environment, supervisor
from tests.testbed.host import RESOURCE, Host
from tests.testbed.runtime import cpus

__all__ = ["start_runtime"]  # a fixture

# `left` is the number of iterations until the signal. No handler is set before the first one.
COUNTING = """
import os, pathlib, selectors, signal
directory = pathlib.Path({directory!r})
reached = directory / "reached"

class Counting(selectors.DefaultSelector):
    def __init__(self):
        super().__init__()
        self.left = number + 1

    def select(self, timeout=None):
        self.left -= 1
        if self.left == 0:
            reached.touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return super().select(timeout)

selectors.DefaultSelector = Counting
"""

# Each worker has the next number. A worker that ends with its kubelet before the signal is started
# again, as that may be by chance; after the third time, the daemon ends. If both happen at once, it
# ends as for its kubelet: the socket of the metrics is left to the next one.
SERVE = """
import sys
from isolcpus_dp.kubelet import registration
from isolcpus_dp.service import failures, worker
failures.FIRST_DELAY = failures.LONGEST_DELAY = 0.0
number, missed = 0, 0
fork = worker.fork
gone = directory / "gone"

class Left(registration.Left):
    def __init__(self, sentence):
        super().__init__(sentence)
        gone.touch()

registration.Left = Left

def fork_next(work):
    global number, missed
    left = {{path.name for path in (directory / "kubelet/device-plugins").iterdir()}}
    left |= {{path.name for path in directory.glob("metrics*")}}
    checkpoint = "kubelet_internal_checkpoint"
    left -= {{"kubelet.sock", checkpoint, f".{{checkpoint}}"}}  # the latter while it is written
    if left and reached.exists() and not gone.exists():
        sys.stderr.write(f"left behind after {{number}}: {{sorted(left)}}\\n")
    missed = 0 if number == 0 or reached.exists() else missed + 1
    number += not missed
    for path in reached, gone:
        path.unlink(missing_ok=True)
    if missed == 3:
        sys.stderr.write(f"over after {{number}}\\n")
        os.kill(os.getpid(), signal.SIGTERM)
    return fork(work)

worker.fork = fork_next
"""

# Each child has the next number. It is connected, outdated, connected again, and closes the
# connection; then it is over.
PIN = """
import asyncio, itertools, sys
from isolcpus_dp import cli
from isolcpus_dp.nri import daemon
from isolcpus_dp.nri.outcome import Outcome
from isolcpus_dp.nri.session import Session
from isolcpus_dp.service import process
synchronized, times = Session.synchronized, 0

def go_on(session, runtime):
    global times
    synchronized(session, runtime)
    times += 1
    loop = asyncio.get_running_loop()
    if times == 1:
        loop.call_soon(session.outdate, session.rules)
    else:
        loop.call_soon(session.close)

def over(outcome, times):
    os.kill(os.getpid(), signal.SIGTERM)
    return 60.0

Session.synchronized, Outcome.retry_seconds = go_on, over
for number in itertools.count(1):
    reached.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        process.exit_now(cli.main(sys.argv[1:]))
    _, status = os.waitpid(child, 0)
    if status:
        sys.stderr.write(f"status {{status}} after {{number}}\\n")
    if left := os.listdir(directory / "run"):
        sys.stderr.write(f"left behind after {{number}}: {{left}}\\n")
    if not reached.exists():
        sys.stderr.write(f"over after {{number}}\\n")
        break
"""


def assert_ended_silently(log: str, at_least: int) -> None:
    """Each run but the last one has ended as it should; there were at least so many."""
    for sign in ("Traceback", "trying again", "left behind", "status ", "Error", "never"):
        assert sign not in log
    [last] = [line for line in log.splitlines() if line.startswith("over after ")]
    assert int(last.split()[-1]) >= at_least


async def close_each_stream(daemon: Supervisor, kubelet: Kubelet) -> None:
    """Closes the stream of each worker that has registered."""
    worker: Worker | None = None
    while True:
        worker = await daemon.worker(is_registered, other_than=worker)
        await kubelet.plugins[RESOURCE].close()


@pytest.mark.parametrize("metrics", ["", "[Metrics]\nListen={}/metrics\n"], ids=["", "metrics"])
async def test_sigterm_at_every_await_ends_a_worker_silently(
    host: Host, kubelet: Kubelet, metrics: str
) -> None:
    prelude = (COUNTING + SERVE).format(directory=os.fspath(host.directory))
    configuration = metrics.format(host.directory)
    async with supervisor(host, "serve", configuration, prelude=prelude).running() as daemon:
        closing = asyncio.create_task(close_each_stream(daemon, kubelet))
        run = await daemon.until(lambda run: run.ended is not None, seconds=300)
        await process.cancel([closing])
        assert run.exit_status == 0
    assert_ended_silently(host.log, at_least=20)


async def test_sigterm_at_every_await_ends_the_pinning_daemon_silently(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    pod = runtime.run_pod("a")
    owner = await runtime.create(pod, "owner", {RESOURCE: "1,9"}, starts=False)
    (host.directory / "run").mkdir()
    code = (COUNTING + PIN).format(directory=os.fspath(host.directory))
    command = [sys.executable, "-c", code, *host.command("pin")[3:]]
    started = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE,
        env={**plain_environment(), "RUNTIME_DIRECTORY": os.fspath(host.directory / "run")},
    )  # fmt: skip
    _, log = await asyncio.wait_for(started.communicate(), 300)
    assert cpus(owner) == "1,9"
    assert_ended_silently(log.decode(), at_least=12)
