"""One process, one registration: when the device plugin ends, and the files it removes."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
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
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .conftest import next_message
from .kubelets import MuteKubelet


async def test_pidfile_has_the_pid_of_the_main_process(serving: Supervisor) -> None:
    pidfile = serving.runtime_dir / "isolcpus-dp.pid"
    assert pidfile.read_text() == f"{serving.current.pid}\n"
    assert pidfile.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_the_daemon_and_removes_its_files(
    host: Host, kubelet: Kubelet, number: signal.Signals
) -> None:
    runtime_dir = host.directory / "runtime"
    runtime_dir.mkdir()
    # Not under the supervisor, which removes the runtime directory as systemd does.
    process = await asyncio.create_subprocess_exec(
        *host.command("serve"),
        env={**plain_environment(), "RUNTIME_DIRECTORY": str(runtime_dir)},
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


async def test_unwritable_mark_and_pidfile_are_logged(host: Host, kubelet: Kubelet) -> None:
    with (host.directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *host.command("serve"),
            env={**plain_environment(), "RUNTIME_DIRECTORY": str(host.directory / "absent")},
            stderr=log,
        )
    await has_devices(kubelet)
    await until(lambda: host.log.count("could not write") == 3)
    process.terminate()
    assert await process.wait() == 0
    for name in ("registered", "isolcpus-dp.pid", "configuration"):
        assert (f"{host.directory}/absent/{name}: No such file or directory;") in host.log


async def test_threads_of_a_worker_wake_up_in_time(registered: Supervisor) -> None:
    """gRPC's threads wait for each other by sleeping for microseconds, on Debian 13 and newer.

    If their timers may expire late, an answer to the kubelet takes up to two seconds.
    """
    worker = await registered.worker(is_registered)
    slacks = []
    for task in Path(f"/proc/{worker.pid}/task").iterdir():
        try:
            slacks.append(Path(f"/proc/{task.name}/timerslack_ns").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread has just ended
        except PermissionError:
            pytest.skip("this user may not see the timer slack of other processes")
    assert len(slacks) > 1
    assert set(slacks) == {"50000\n"}  # the default


async def test_next_worker_waits_when_the_kubelet_ends(
    host: Host, kubelet: Kubelet, registered: Supervisor, start_kubelet: StartKubelet
) -> None:
    first = await registered.worker(is_registered)
    await kubelet.stop()
    second = await registered.worker(is_ready, other_than=first)
    await has_devices(await start_kubelet())
    assert registered.workers == [first, second]
    assert len(registered.runs) == 1
    assert "the kubelet closed the ListAndWatch stream of" in host.log


async def test_static_pods_get_cpus_after_each_kubelet_restart(
    serving: Supervisor, start_kubelet: StartKubelet
) -> None:
    worker = None
    for number in range(3):
        worker = await serving.worker(is_ready, other_than=worker)
        kubelet = await start_kubelet(Pod(f"static-{number}", {RESOURCE: 1}))
        await kubelet.until(lambda kubelet=kubelet: bool(kubelet.pods))  # type: ignore[misc]
        assert kubelet.pods == {f"static-{number}": "Running"}
        await kubelet.stop()


async def test_worker_ends_without_a_stream_for_ten_seconds(
    host: Host, start_kubelet: StartKubelet
) -> None:
    await start_kubelet(kind=MuteKubelet)
    async with supervisor(host, "serve").running() as daemon:
        first = await daemon.worker(is_ready)
        second = await daemon.worker(is_ready, other_than=first)
        assert first.registered is None
        assert first.ready
        assert second.ready
        assert second.ready - first.ready > 9
        assert f"accepted the registration of {RESOURCE} but opened no ListAndWatch" in host.log


async def test_end_of_another_clients_stream_changes_nothing(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        stream = rpc.DevicePluginStub(channel).ListAndWatch(api.Empty())
        assert len((await next_message(stream)).devices) == 4
    await asyncio.sleep(0.5)
    assert len(registered.workers) == 1
    assert kubelet.allocatable(RESOURCE) == 4
