"""The main process that stands by: its workers, their failures, and what its signals do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import (
    has_devices,
    is_ready,
    is_registered,
    plain_environment,
    supervisor,
)
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.prelude import USED_UP_LIMITS
from tests.testbed.process import open_files
from tests.testbed.wait import until

DPDK = "[Pool dpdk]\nResourceName=example.com/isolcpus-dpdk\nCPUs=1,9\n"
WAITING = f"Waiting for the kubelet to register {RESOURCE}: 4 devices, 0 unhealthy"


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that nobody has waited for has ended."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_main_process_has_one_thread_and_no_event_loop(serving: Supervisor) -> None:
    main, worker = serving.current.pid, serving.workers[0].pid
    assert main != worker
    assert [entry.name for entry in Path(f"/proc/{main}/task").iterdir()] == [str(main)]
    assert len(list(Path(f"/proc/{worker}/task").iterdir())) > 1
    assert main
    assert [name for name in open_files(main) if "eventpoll" in name] == []


async def test_workers_load_nothing_after_the_fork(
    host: Host, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    metrics = f"[Metrics]\nListen={host.directory}/metrics.sock\n"
    async with registered_with(supervisor(host, "serve", metrics), kubelet) as daemon:
        first = daemon.workers[0]
        before = len(host.log)
        os.kill(first.pid, signal.SIGTERM)
        await daemon.worker(is_registered, other_than=first)
        await has_devices(kubelet)
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    second = host.log[before:]
    assert "offering CPU" in second
    assert "allocated CPU" in second
    assert [line for line in second.splitlines() if line.startswith("import time:")] == []


async def test_killed_worker_is_replaced(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    for number in range(3):
        worker = registered.workers[-1]
        os.kill(worker.pid, signal.SIGKILL)
        await registered.worker(is_registered, other_than=worker)
        await has_devices(kubelet)
        assert len(registered.workers) == number + 2
    assert len(registered.runs) == 1
    assert host.log.count("the worker was killed by SIGKILL; trying again") == 3


async def test_mark_of_a_killed_worker_is_removed(host: Host, kubelet: Kubelet) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet) as daemon:
        mark = daemon.runtime_dir / "registered"
        await until(mark.exists)
        await kubelet.stop()
        await until(lambda: not mark.exists())


async def test_killed_main_process_takes_its_worker_with_it(registered: Supervisor) -> None:
    run, worker = registered.current, registered.workers[0]
    assert run.pid
    os.kill(run.pid, signal.SIGKILL)
    await registered.until(lambda current: current is not run)
    await until(lambda: not is_alive(worker.pid))
    await registered.worker(is_registered, other_than=worker)


async def test_stopped_worker_is_killed_when_the_daemon_stops(host: Host, kubelet: Kubelet) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet) as daemon:
        worker = daemon.workers[0]
        os.kill(worker.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 9  # TimeoutStopSec= is 10 s
    assert daemon.runs[0].exit_status == 0
    assert not is_alive(worker.pid)


async def test_sigterm_ends_the_worker_before_the_main_process(
    host: Host, kubelet: Kubelet
) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet) as daemon:
        worker = daemon.workers[0]
    assert daemon.runs[0].exit_status == 0
    assert not is_alive(worker.pid)
    assert not host.endpoint.exists()
    assert host.log.count("asked to stop") == 1
    assert "Traceback" not in host.log


async def test_permanent_failure_is_logged_once_and_retried_less_and_less(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    # With a watchdog, each worker sends a notification.
    environment = {**plain_environment(), "WATCHDOG_USEC": "30000000"}
    second = Supervisor(host.command("serve"), host.directory / "second", environment)
    (host.directory / "second").mkdir()
    async with second.running():
        await second.until(lambda run: run.is_ready)
        # Nobody waits for it for ever, although it does not serve.
        assert second.current.status.startswith(f"Failed, trying again: {host.endpoint} is held")
        await asyncio.sleep(3)
        assert second.current.exit_status is None
        # 0.1, 0.2, 0.4, 0.8 and 1.6 s apart; at a constant 0.1 s there would be about 25.
        assert 3 <= len(second.current.workers) <= 8
    assert second.log.read_text().count("is held by process") == 1
    assert kubelet.registrations == 1
    assert len(registered.workers) == 1


async def test_worker_serves_soon_after_the_cause_of_its_failure_is_gone(host: Host) -> None:
    first, second = supervisor(host, "serve"), host.directory / "second"
    second.mkdir()
    later = Supervisor(host.command("serve"), second)
    async with first.running():
        await first.worker(is_ready)
        async with later.running():
            await later.until(lambda run: run.status.startswith("Failed"))
            os.kill(first.workers[0].pid, signal.SIGSTOP)
            main = first.current.pid
            assert main
            os.kill(main, signal.SIGKILL)
            await later.until(lambda run: run.status == WAITING)


async def test_exhausted_inotify_limits_are_one_sentence(host: Host) -> None:
    async with supervisor(host, "serve", prelude=USED_UP_LIMITS).running() as daemon:
        await daemon.until(lambda run: run.status.startswith("Failed"))
        await asyncio.sleep(1)
    assert [line for line in host.log.splitlines() if "files" in line] == [
        "[Errno 24] Too many open files: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches; trying again, at intervals of up to"
        " 10 s"
    ]
    assert "Traceback" not in host.log


async def test_internal_error_of_a_worker_is_logged_once_with_its_traceback(host: Host) -> None:
    broken = "from isolcpus_dp.kubelet import daemon\ndel daemon.SocketWatch"
    async with supervisor(host, "serve", prelude=broken).running() as daemon:
        await daemon.until(lambda run: "Failed" in run.status)
        await asyncio.sleep(1)
    assert host.log.count("Traceback") == 1
    assert "NameError: name 'SocketWatch' is not defined; trying again" in host.log


async def test_unreadable_machine_is_tried_again(host: Host) -> None:
    cpus = host.machine.root / "devices" / "system" / "cpu"
    cpus.rename(cpus.with_name("moved"))
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(lambda run: run.is_ready and run.status.startswith("Failed"))
        cpus.with_name("moved").rename(cpus)
        await daemon.until(lambda run: run.status == WAITING)
        assert len(daemon.runs) == 1


async def test_watchdog_is_fed_while_no_worker_can_be_forked(host: Host) -> None:
    cpus = host.machine.root / "devices" / "system" / "cpu"
    cpus.rename(cpus.with_name("moved"))
    environment = {**plain_environment(), "WATCHDOG_USEC": "30000000"}
    async with supervisor(host, "serve", environment=environment).running() as daemon:
        run = await daemon.until(lambda run: run.fed >= 3)
        assert [one.pid for one in run.workers] == [run.pid]  # the main process itself


async def test_ignored_sigchld_is_not_inherited(host: Host, kubelet: Kubelet) -> None:
    ignored = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    async with registered_with(supervisor(host, "serve", prelude=ignored), kubelet) as daemon:
        worker = daemon.workers[0]
        os.kill(worker.pid, signal.SIGKILL)
        await daemon.worker(is_registered, other_than=worker)
        assert len(daemon.runs) == 1


async def test_absent_directory_is_waited_for(host: Host, start_kubelet: StartKubelet) -> None:
    shutil.rmtree(host.kubelet_dir)
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(lambda run: run.is_ready)
        directory = f"Waiting for the kubelet's directory {host.device_plugins}"
        assert daemon.current.status == directory
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1


async def test_directory_that_is_removed_while_waiting_is_waited_for(
    host: Host, serving: Supervisor, start_kubelet: StartKubelet
) -> None:
    await until(lambda: "waiting for the kubelet at" in host.log)
    shutil.rmtree(host.kubelet_dir)
    await serving.until(lambda run: "Waiting for the kubelet's directory" in run.status)
    assert f"{host.device_plugins} was removed, moved or replaced" in host.log
    await has_devices(await start_kubelet())
    assert len(serving.runs) == 1


@pytest.mark.parametrize("replaced_by", ["link", "directory"])
async def test_directory_that_is_replaced_while_waiting_is_followed(
    host: Host, serving: Supervisor, start_kubelet: StartKubelet, replaced_by: str
) -> None:
    worker = await serving.worker(is_ready)
    await until(lambda: "waiting for the kubelet at" in host.log)
    host.kubelet_dir.rename(host.directory / "moved")
    other = host.directory / "other" if replaced_by == "link" else host.kubelet_dir
    (other / "device-plugins").mkdir(parents=True)
    if replaced_by == "link":
        host.kubelet_dir.symlink_to(other)
    await serving.worker(lambda one: one.status == WAITING, other_than=worker)
    assert (other / "device-plugins" / host.endpoint.name).is_socket()
    await has_devices(await start_kubelet())


async def test_reload_replaces_the_worker(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    before, run = registered.workers[0], registered.current
    published = (registered.runtime_dir / "configuration").read_text()
    host.configure(DPDK)
    assert run.pid
    os.kill(run.pid, signal.SIGHUP)
    await registered.worker(is_registered, other_than=before)
    await has_devices(kubelet, 2)
    await has_devices(kubelet, 2, "example.com/isolcpus-dpdk")
    assert not is_alive(before.pid)
    assert registered.runs == [run]
    assert "read the configuration again: registering again" in host.log
    assert (registered.runtime_dir / "configuration").read_text() != published


async def test_reload_of_a_wrong_file_keeps_the_old_configuration(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    host.configure("[Plugin]\nCPUs=two\n")
    assert registered.current.pid
    os.kill(registered.current.pid, signal.SIGHUP)
    await until(lambda: "the earlier configuration stays in force" in host.log)
    assert "[Plugin] CPUs=two: 'two' is not a CPU number" in host.log
    # Also for the next kubelet.
    os.kill(registered.workers[0].pid, signal.SIGKILL)
    await registered.worker(is_registered, other_than=registered.workers[0])
    await has_devices(kubelet)
    assert len(registered.runs) == 1


async def test_reload_without_a_change_keeps_the_worker(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    host.configure("# a comment\n")
    assert registered.current.pid
    os.kill(registered.current.pid, signal.SIGHUP)
    await until(lambda: "read the configuration again: nothing has changed" in host.log)
    assert (kubelet.registrations, len(registered.workers)) == (1, 1)


async def test_wrong_configuration_at_the_start_ends_the_daemon(host: Host) -> None:
    async with supervisor(host, "serve", "[Plugin]\nCPUs=two\n").running() as daemon:
        run = await daemon.until(lambda run: run.exit_status is not None)
        assert run.exit_status == 2


async def test_kubelet_that_closes_each_stream_is_called_less_and_less(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    for _ in range(5):
        worker = await registered.worker(is_registered)
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
        await kubelet.plugins[RESOURCE].close()
        await registered.worker(is_registered, other_than=worker)
    times = [worker.registered for worker in registered.workers if worker.registered]
    assert times[5] - times[4] > 1.6
