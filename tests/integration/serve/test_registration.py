"""How the device plugin's daemon waits for a kubelet and registers with it."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.machine import MadeUpMachine, regular
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, is_ready, is_registered, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .kubelets import RefusingKubelet, ReplacedKubelet


async def options_at(endpoint: Path) -> api.DevicePluginOptions:
    async with grpc.aio.insecure_channel(f"unix:{endpoint}") as channel:
        return await rpc.DevicePluginStub(channel).GetDevicePluginOptions(api.Empty(), timeout=5)


async def test_daemon_serves_before_the_kubelet_starts(host: Host, serving: Supervisor) -> None:
    assert (await options_at(host.endpoint)).get_preferred_allocation_available
    assert (
        serving.current.status
        == f"Waiting for the kubelet to register {RESOURCE}: 4 devices, 0 unhealthy"
    )


async def test_registers_with_a_running_kubelet(kubelet: Kubelet, registered: Supervisor) -> None:
    await has_devices(kubelet)
    assert registered.current.status == f"Registered {RESOURCE}: 4 devices, 0 unhealthy"
    nodes = {
        device_id: device.topology.nodes[0].ID
        for device_id, device in kubelet.plugins[RESOURCE].devices.items()
    }
    assert nodes == {"1": 0, "5": 1, "9": 0, "13": 1}


async def test_registers_with_a_late_kubelet_that_removes_sockets(
    serving: Supervisor, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    await has_devices(kubelet)
    assert kubelet.registrations == 1
    assert len(serving.workers) == 1


async def test_socket_without_a_listener_is_not_used(
    host: Host, start_kubelet: StartKubelet
) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(host.kubelet_socket))
    async with supervisor(host, "serve").running() as daemon:
        worker = await daemon.worker(is_ready)
        await asyncio.sleep(4.5)  # longer than the daemon retries a new socket
        assert (len(daemon.workers), worker.registered) == (1, None)
        await has_devices(await start_kubelet())


@pytest.mark.usefixtures("serving")
async def test_socket_may_start_listening_after_it_appears(
    host: Host,
) -> None:
    with socket.socket(socket.AF_UNIX) as late:
        late.bind(str(host.kubelet_socket))
        await asyncio.sleep(0.05)
        late.listen()
        late.settimeout(5)
        connection, _ = await asyncio.to_thread(late.accept)
        connection.close()


async def test_registration_mark_has_the_time_of_the_socket(
    host: Host, registered: Supervisor
) -> None:
    mark = registered.runtime_dir / "registered"
    assert mark.stat().st_mtime_ns == host.kubelet_socket.stat().st_mtime_ns
    assert mark.stat().st_mode & 0o777 == 0o600


async def test_rejection_is_logged_and_the_next_kubelet_is_tried(
    host: Host, start_kubelet: StartKubelet
) -> None:
    refusing = await start_kubelet(kind=RefusingKubelet)
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        assert daemon.current.status.endswith("the resource is not supported")
        assert f"rejected the registration of {RESOURCE}: the resource is not supported" in host.log
        await refusing.stop()
        await has_devices(await start_kubelet())
        assert len(daemon.runs) == 1


async def test_next_kubelet_is_tried_while_the_rejecting_one_runs(
    host: Host, start_kubelet: StartKubelet
) -> None:
    refusing = await start_kubelet(kind=RefusingKubelet)
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        await has_devices(await start_kubelet())
        assert (refusing.registrations, len(daemon.workers)) == (1, 2)


async def test_rejected_registration_is_retried(host: Host, start_kubelet: StartKubelet) -> None:
    refusing = await start_kubelet(kind=RefusingKubelet)
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(lambda run: "Rejected" in run.status)
        assert refusing.registrations == 1
        began = time.monotonic()
        await until(lambda: refusing.registrations == 2)
        assert time.monotonic() - began > 3
        assert len(daemon.workers) == 1


async def test_kubelet_replaced_during_registration_ends_the_worker(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(kind=ReplacedKubelet)
    async with supervisor(host, "serve").running() as daemon:
        await kubelet.until(lambda: kubelet.registrations == 2)
        await daemon.until(lambda run: len(run.workers) == 2 and is_registered(run.workers[1]))
        assert "the kubelet's socket was recreated" in host.log


async def test_host_without_isolated_cpus_registers_no_device(host: Host, kubelet: Kubelet) -> None:
    host.machine = MadeUpMachine(host.directory / "plain", regular(1, 2, 1))
    async with registered_with(supervisor(host, "serve"), kubelet) as daemon:
        assert kubelet.plugins[RESOURCE].devices == {}
        assert "no CPU of this host is isolated: boot it with isolcpus=" in host.log
        assert daemon.current.status == f"Registered {RESOURCE}: 0 devices, 0 unhealthy"
