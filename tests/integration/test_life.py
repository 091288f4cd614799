"""One process, one registration: the life of the daemon, against a kubelet over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet import daemon as plugin_daemon
from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.machine import MadeUpMachine, regular
from isolcpus_dp.simulator.supervisor import Run

from .conftest import RESOURCE, Host, until

StartKubelet = Callable[..., Awaitable[Kubelet]]


def ready(run: Run) -> bool:
    return run.ready > 0


def registered(run: Run) -> bool:
    return run.registered > 0


async def has_devices(kubelet: Kubelet, healthy: int = 4) -> None:
    await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == healthy)


async def options_at(endpoint: Path) -> api.DevicePluginOptions:
    async with grpc.aio.insecure_channel(f"unix:{endpoint}") as channel:
        return await rpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty(), timeout=5)


async def next_message(stream: Any) -> api.ListAndWatchResponse:
    message = await stream.read()
    assert isinstance(message, api.ListAndWatchResponse)
    return message


async def test_serves_before_there_is_a_kubelet(host: Host) -> None:
    async with host.daemon().running() as daemon:
        run = await daemon.until(ready)
        assert (await options_at(host.endpoint)).get_preferred_allocation_available
        assert (
            run.status == f"Waiting for the kubelet to register {RESOURCE}: 4 devices, 0 unhealthy"
        )


async def test_registers_with_a_kubelet_that_was_there_before(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        await has_devices(kubelet)
        run = await daemon.until(registered)
        assert run.status == f"Registered {RESOURCE}: 4 devices, 0 unhealthy"
        nodes = {
            device_id: device.topology.nodes[0].ID
            for device_id, device in kubelet.plugins[RESOURCE].devices.items()
        }
        assert nodes == {"1": 0, "5": 1, "9": 0, "13": 1}


async def test_registers_with_a_kubelet_that_comes_late_and_wipes_the_sockets(
    host: Host, start_kubelet: StartKubelet
) -> None:
    async with host.daemon().running() as daemon:
        await daemon.until(ready)
        kubelet = await start_kubelet()
        await has_devices(kubelet)
        assert kubelet.registrations == 1
        assert len(daemon.runs) == 1


async def test_dead_socket_is_waited_out(host: Host, start_kubelet: StartKubelet) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(host.socket))
    async with host.daemon().running() as daemon:
        run = await daemon.until(ready)
        await asyncio.sleep(4.5)  # longer than it takes a new socket for not listening yet
        assert (len(daemon.runs), run.registered) == (1, 0)
        await has_devices(await start_kubelet())


async def test_socket_that_listens_a_moment_after_it_appeared_is_not_taken_for_dead(
    host: Host,
) -> None:
    async with host.daemon().running() as daemon:
        await daemon.until(ready)
        with socket.socket(socket.AF_UNIX) as late:
            late.bind(str(host.socket))
            await asyncio.sleep(0.05)
            late.listen()
            late.settimeout(5)
            connection, _ = await asyncio.to_thread(late.accept)
            connection.close()


async def test_mark_of_the_registration_has_the_time_of_the_socket(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        await daemon.until(registered)
        await has_devices(kubelet)
        mark = daemon.runtime_dir / "registered"
        assert mark.stat().st_mtime_ns == host.socket.stat().st_mtime_ns
        assert mark.stat().st_mode & 0o777 == 0o600


async def test_pidfile_names_the_daemon_while_it_serves(host: Host) -> None:
    async with host.daemon().running() as daemon:
        run = await daemon.until(ready)
        pidfile = daemon.runtime_dir / "isolcpus-dp.pid"
        assert pidfile.read_text() == f"{run.pid}\n"
        assert pidfile.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_and_removes_socket_mark_and_pidfile(
    host: Host, start_kubelet: StartKubelet, number: signal.Signals
) -> None:
    kubelet = await start_kubelet()
    runtime_dir = host.folder / "runtime"
    runtime_dir.mkdir()
    # Not under the supervisor, which removes the runtime directory as systemd does.
    process = await asyncio.create_subprocess_exec(
        *map(str, host.command()),
        env={**host.environment, "RUNTIME_DIRECTORY": str(runtime_dir)},
        stderr=asyncio.subprocess.PIPE,
    )
    await has_devices(kubelet)
    mark = runtime_dir / "registered"
    await until(mark.exists)
    assert host.endpoint.exists()
    assert (runtime_dir / "isolcpus-dp.pid").read_text() == f"{process.pid}\n"
    process.send_signal(number)
    _, log = await process.communicate()
    assert process.returncode == 0
    assert "asked to stop" in log.decode()
    await has_devices(kubelet, 0)
    assert not host.endpoint.exists()
    assert list(runtime_dir.iterdir()) == []


async def test_mark_and_pidfile_that_cannot_be_written_are_told_and_stop_nothing(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    with (host.folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *map(str, host.command()),
            env={**host.environment, "RUNTIME_DIRECTORY": str(host.folder / "absent")},
            stderr=log,
        )
    await has_devices(kubelet)
    await until(lambda: host.log.count("could not write") == 2)
    process.terminate()
    assert await process.wait() == 0
    for name in ("registered", "isolcpus-dp.pid"):
        assert (
            f"could not write {host.folder}/absent/{name}: No such file or directory;"
        ) in host.log


async def test_daemon_ends_with_its_kubelet_and_a_fresh_one_waits_for_the_next(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        first = await daemon.until(registered)
        await has_devices(kubelet)
        await kubelet.stop()
        second = await daemon.until(lambda run: run is not first and ready(run))
        assert first.exit_status == 0
        await has_devices(await start_kubelet())
        assert daemon.current is second
        assert "the kubelet closed the ListAndWatch stream of" in host.log


async def test_static_pods_get_their_cpus_after_each_restart_of_the_kubelet(
    host: Host, start_kubelet: StartKubelet
) -> None:
    async with host.daemon().running() as daemon:
        for number in range(3):
            await daemon.until(lambda run: ready(run) and not run.ended)
            kubelet = await start_kubelet(Pod(f"static-{number}", {RESOURCE: 1}))
            await kubelet.until(lambda kubelet=kubelet: bool(kubelet.pods))  # type: ignore[misc]
            assert kubelet.pods == {f"static-{number}": "Running"}
            run = daemon.current
            await kubelet.stop()
            await daemon.until(lambda current, run=run: current is not run)  # type: ignore[misc]


class MuteKubelet(Kubelet):
    """Takes a registration, and then does nothing about it."""

    async def connect(self, request: api.RegisterRequest) -> None:
        pass


async def test_kubelet_that_opens_no_stream_in_ten_seconds_is_left(
    host: Host, start_kubelet: StartKubelet
) -> None:
    await start_kubelet(kind=MuteKubelet)
    async with host.daemon().running() as daemon:
        run = await daemon.until(registered)
        await daemon.until(lambda current: current is not run or run.exit_status is not None)
        assert run.exit_status == 0
        assert run.ended - run.registered > 9
        assert f"took the registration of {RESOURCE} but opened no ListAndWatch" in host.log


class RefusingKubelet(Kubelet):
    """Refuses every registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        raise ValueError("the moon is in the wrong phase")


async def test_refusal_is_logged_in_the_kubelets_words_and_the_next_kubelet_is_asked(
    host: Host, start_kubelet: StartKubelet
) -> None:
    refusing = await start_kubelet(kind=RefusingKubelet)
    async with host.daemon().running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        assert daemon.current.status.endswith("the moon is in the wrong phase")
        assert f"refused to register {RESOURCE}: the moon is in the wrong phase" in host.log
        await refusing.stop()
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1


async def test_next_kubelet_is_asked_though_the_one_that_refused_still_lives(
    host: Host, start_kubelet: StartKubelet
) -> None:
    refusing = await start_kubelet(kind=RefusingKubelet)
    async with host.daemon().running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        await has_devices(await start_kubelet())
        assert (refusing.registrations, len(daemon.runs)) == (1, 1)


class ReplacedKubelet(Kubelet):
    """Has a new socket in its place by the time it answers the first registration."""

    async def connect(self, request: api.RegisterRequest) -> None:
        await super().connect(request)
        if self.registrations == 1:
            os.utime(paths.registration_socket(self.directory))


async def test_kubelet_that_was_replaced_while_it_registered_us_is_left(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(kind=ReplacedKubelet)
    async with host.daemon().running() as daemon:
        await kubelet.until(lambda: kubelet.registrations == 2)
        await daemon.until(lambda run: len(daemon.runs) == 2 and registered(run))
        assert daemon.runs[0].exit_status == 0
        assert "the kubelet was replaced during the registration" in host.log


async def test_refusing_kubelet_is_asked_again(host: Host, start_kubelet: StartKubelet) -> None:
    refusing = await start_kubelet(kind=RefusingKubelet)
    async with host.daemon().running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        assert refusing.registrations == 1
        began = time.monotonic()
        await until(lambda: refusing.registrations == 2)
        assert time.monotonic() - began > 3
        assert len(daemon.runs) == 1


async def test_host_without_isolated_cpus_registers_no_device_and_says_so(
    host: Host, start_kubelet: StartKubelet, tmp_path: Path
) -> None:
    host.machine = MadeUpMachine(tmp_path / "plain", regular(1, 2, 1))
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        run = await daemon.until(registered)
        await kubelet.until(lambda: kubelet.plugins[RESOURCE].reported > 0)
        assert kubelet.plugins[RESOURCE].devices == {}
        assert "no CPU of this host is isolated: boot it with isolcpus=" in host.log
        assert run.status == f"Registered {RESOURCE}: 0 devices, 0 unhealthy"


async def test_second_daemon_says_who_holds_the_socket_and_ends(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        first = await daemon.until(registered)
        second = await asyncio.to_thread(
            subprocess.run, host.command(), capture_output=True, text=True, timeout=20
        )
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].startswith(
            f"{host.endpoint} is held by process {first.pid} ("
        )
        await has_devices(kubelet)
        assert (kubelet.registrations, len(daemon.runs)) == (1, 1)


async def test_daemon_binds_only_when_no_other_one_is_about_to(host: Host) -> None:
    """Two that look for a holder at the same time would both find none."""
    folder = os.open(host.socket.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    async with host.daemon().running() as daemon:
        await asyncio.sleep(1)
        assert not host.endpoint.exists()
        os.close(folder)
        await daemon.until(ready)
        assert host.endpoint.exists()


async def test_of_two_daemons_started_at_once_one_serves(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    processes = [
        await asyncio.create_subprocess_exec(
            *map(str, host.command()), stderr=asyncio.subprocess.DEVNULL
        )
        for _ in range(2)
    ]
    await has_devices(kubelet)
    ends = [asyncio.create_task(process.wait()) for process in processes]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result() for task in done] == [1]
    await asyncio.sleep(0.5)
    assert sum(process.returncode is None for process in processes) == 1
    for process in processes:
        if process.returncode is None:
            process.terminate()
    await asyncio.gather(*ends)


async def test_onlookers_stream_does_not_end_the_daemon(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        await daemon.until(registered)
        await has_devices(kubelet)
        async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
            stream = rpc.DevicePluginStub(channel).ListAndWatch(api.Empty())
            assert len((await next_message(stream)).devices) == 4
        await asyncio.sleep(0.5)
        assert len(daemon.runs) == 1
        assert kubelet.allocatable(RESOURCE) == 4


async def test_removed_folder_ends_the_daemon(host: Host) -> None:
    async with host.daemon().running() as daemon:
        run = await daemon.until(ready)
        await until(lambda: "waiting for the kubelet" in host.log)
        shutil.rmtree(host.kubelet_dir)
        await daemon.until(lambda current: run.exit_status is not None)
        assert run.exit_status == 0
        assert f"{host.socket.parent} was removed or moved" in host.log


async def test_cpu_taken_offline_becomes_unhealthy_in_one_message(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running() as daemon:
        await daemon.until(registered)
        await has_devices(kubelet)
        async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
            stream = rpc.DevicePluginStub(channel).ListAndWatch(api.Empty())
            await next_message(stream)
            host.machine.set_offline(9)
            message = await next_message(stream)
            health = {device.ID: device.health for device in message.devices}
            assert health == {"1": "Healthy", "5": "Healthy", "9": "Unhealthy", "13": "Healthy"}
            # A housekeeping CPU, and the same state once more: nothing that the kubelet must know.
            host.machine.set_offline(0)
            host.machine.set_offline(9)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(stream.read(), 0.5)
        await has_devices(kubelet, 3)
        assert daemon.current.status == f"Registered {RESOURCE}: 4 devices, 1 unhealthy"
        assert "CPU 9 is offline; reported to the kubelet" in host.log
        host.machine.set_online(9)
        await has_devices(kubelet, 4)


async def test_cpu_that_went_offline_while_the_daemon_started_is_unhealthy(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    surroundings = plugin_daemon.Host(host.machine.root, host.kubelet_dir, None)
    daemon = plugin_daemon._Daemon(surroundings, Config(), machine.read(host.machine.root))
    host.machine.set_offline(9)  # nobody watches yet
    task = asyncio.create_task(daemon.live())
    await has_devices(kubelet, 3)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_used_up_limits_are_one_sentence(host: Host) -> None:
    code = (
        "import errno, os, sys; from isolcpus_dp import cli; from isolcpus_dp.host import inotify\n"
        "def fail(flags): raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))\n"
        "inotify._libc.inotify_init1 = fail\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, host.command()[3:])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "[Errno 24] Too many open files: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches"
    )
    assert "Traceback" not in result.stderr


async def test_pod_gets_environment_and_annotation_for_siblings(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running():
        await has_devices(kubelet)
        answer = (await kubelet.admit(Pod("forwarder", {RESOURCE: 2})))[RESOURCE]
        assert answer.envs == {"ISOLCPUS": "1,9"}
        assert answer.annotations == {RESOURCE: "1,9"}
        assert list(answer.devices) == []  # the made-up host has no cpuid device


def test_missing_folder_is_named(host: Host) -> None:
    shutil.rmtree(host.kubelet_dir)
    result = subprocess.run(host.command(), capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"{host.socket.parent} cannot be opened: No such file or directory: it is the kubelet's"
        " directory for device plugins; see --kubelet-dir"
    )


async def test_daemon_loads_no_report(
    host: Host, start_kubelet: StartKubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    kubelet = await start_kubelet()
    async with host.daemon().running():
        await has_devices(kubelet)
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    loaded = {line.rpartition("|")[2].strip() for line in host.log.splitlines()}
    assert "isolcpus_dp.kubelet.daemon" in loaded
    reports = {name for name in loaded if name.startswith("isolcpus_dp.report")}
    assert not loaded & {"prometheus_client", "rich", "yaml", "json"} | reports
