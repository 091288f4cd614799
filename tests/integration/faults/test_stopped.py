"""SIGSTOP of each process, and of the kubelet and the runtime; a process that is killed."""

from __future__ import annotations

import os
import signal

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.integration.pin.conftest import StartRuntime, start_runtime
from tests.testbed.daemon import connected, has_devices, is_ready, is_registered, supervisor
from tests.testbed.host import RESOURCE, Host
from tests.testbed.runtime import cpus
from tests.testbed.wait import until

__all__ = ["start_runtime"]  # a fixture

OWNER = {RESOURCE: "1,9"}


def state(pid: int) -> str:
    """The state of a process: T is stopped, Z has ended (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 (a line of the kernel)
        return file.read().rpartition(")")[2].split()[0]


async def test_stopped_main_process_forks_the_next_worker_when_it_continues(
    registered: Supervisor, kubelet: Kubelet, start_kubelet: StartKubelet
) -> None:
    worker = await registered.worker(is_registered)
    main = registered.current.pid
    assert main
    os.kill(main, signal.SIGSTOP)
    # The worker does not need it.
    await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    assert kubelet.pods == {"owner": "Running"}
    await kubelet.stop()
    await until(lambda: state(worker.pid) == "Z")
    second = await start_kubelet()
    os.kill(main, signal.SIGCONT)
    await has_devices(second)
    assert len(registered.runs) == 1


async def test_stopped_worker_registers_with_the_next_kubelet_when_it_continues(
    registered: Supervisor, kubelet: Kubelet, start_kubelet: StartKubelet
) -> None:
    first = await registered.worker(is_registered)
    os.kill(first.pid, signal.SIGSTOP)
    await kubelet.stop()
    second = await start_kubelet()
    assert second.registrations == 0
    os.kill(first.pid, signal.SIGCONT)
    await has_devices(second)
    assert len(registered.runs) == 1


async def test_stopped_pinning_daemon_updates_containers_when_it_continues(
    host: Host, start_runtime: StartRuntime
) -> None:
    """A runtime closes the connection to a plugin that does not answer, and goes on without it."""
    runtime = await start_runtime()
    async with connected(supervisor(host, "pin"), runtime) as daemon:
        pid = daemon.current.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        await runtime.stop()
        second = await start_runtime()
        missed = await second.create(second.run_pod("a"), "owner", OWNER)
        assert cpus(missed) == ""
        os.kill(pid, signal.SIGCONT)
        await second.until_connected()
        assert cpus(missed) == "1,9"
        assert len(daemon.runs) == 1


async def test_killed_pinning_daemon_updates_containers_when_it_runs_again(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with connected(supervisor(host, "pin"), runtime) as daemon:
        pid = daemon.current.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not runtime.connected)
        missed = await runtime.create(runtime.run_pod("a"), "owner", OWNER, starts=False)
        await runtime.until_connected()
        await until(lambda: cpus(missed) == "1,9")
        assert len(daemon.runs) == 2


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
async def test_worker_that_ends_while_it_starts_is_replaced(
    host: Host, kubelet: Kubelet, number: signal.Signals
) -> None:
    """The first one, before it serves; one that is stopped is killed, as by the watchdog."""
    once = host.directory / "once"
    prelude = (
        "import os, pathlib\n"
        "from isolcpus_dp.kubelet.endpoint import Endpoint\n"
        "publish = Endpoint.publish\n"
        "async def publish_or_end(endpoint):\n"
        f"    once = pathlib.Path({os.fspath(once)!r})\n"
        "    if not once.exists():\n"
        "        once.write_text(str(os.getpid()))\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    await publish(endpoint)\n"
        "Endpoint.publish = publish_or_end\n"
    )
    async with supervisor(host, "serve", prelude=prelude).running() as daemon:
        if number is signal.SIGSTOP:
            await until(lambda: once.exists() and once.read_text() != "")
            os.kill(int(once.read_text()), signal.SIGKILL)
        await daemon.worker(is_ready)
        await has_devices(kubelet)
        assert len(daemon.runs) == 1
    assert "the worker was killed by SIGKILL; trying again" in host.log
