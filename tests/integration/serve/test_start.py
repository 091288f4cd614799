"""Errors at the start of the device plugin, a second daemon, and the modules it loads."""

from __future__ import annotations

import asyncio
import fcntl
import os

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, is_ready, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .conftest import second_daemon


async def test_second_daemon_names_the_holder_of_the_socket(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    holder = registered.workers[0].pid
    async with second_daemon(host, host.command("serve")) as log:
        await until(lambda: "trying again" in log())
        await asyncio.sleep(1)
        [line] = log().splitlines()
    assert line.startswith(f"{host.endpoint} is held by process {holder} (")
    assert line.endswith("stop that process first; trying again, at intervals of up to 10 s")
    await has_devices(kubelet)
    assert (kubelet.registrations, len(registered.workers)) == (1, 1)


async def test_daemon_waits_while_another_one_binds_its_socket(host: Host) -> None:
    """Two daemons that look for a holder at the same time would both find none."""
    directory = os.open(host.device_plugins, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    async with supervisor(host, "serve").running() as daemon:
        await asyncio.sleep(1)
        assert not host.endpoint.exists()
        os.close(directory)
        await daemon.worker(is_ready)
        assert host.endpoint.exists()


async def test_one_of_two_daemons_started_at_once_serves(host: Host, kubelet: Kubelet) -> None:
    logs = [host.directory / name for name in ("first", "second")]
    processes = []
    for path in logs:
        with path.open("wb") as log:
            processes.append(
                await asyncio.create_subprocess_exec(*host.command("serve"), stderr=log)
            )
    await has_devices(kubelet)
    await until(lambda: any("trying again" in path.read_text() for path in logs))
    await asyncio.sleep(1)
    assert kubelet.registrations == 1
    for process in processes:
        process.terminate()
        assert await process.wait() == 0


async def test_daemon_loads_no_report(
    host: Host, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    async with registered_with(supervisor(host, "serve"), kubelet):
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    loaded = {line.rpartition("|")[2].strip() for line in host.log.splitlines()}
    assert "isolcpus_dp.kubelet.daemon" in loaded
    reports = {name for name in loaded if name.startswith("isolcpus_dp.report")}
    assert not loaded & {"prometheus_client", "rich", "yaml", "json"} | reports


async def test_directory_in_place_of_the_kubelets_socket_is_reported(
    host: Host, start_kubelet: StartKubelet
) -> None:
    host.kubelet_socket.mkdir()
    reason = f"{host.kubelet_socket} is a directory, not a socket: remove it"
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(
            lambda run: run.status.startswith(f"Waiting for the kubelet: {reason}"),
        )
        host.kubelet_socket.rmdir()
        await has_devices(await start_kubelet())
        assert len(daemon.workers) == 1
    assert host.log.count(reason) == 1


async def test_directory_in_place_of_the_plugins_socket_is_reported(host: Host) -> None:
    host.endpoint.mkdir()
    async with supervisor(host, "serve").running() as daemon:
        await daemon.until(lambda run: run.status.startswith("Failed, trying again: "))
        host.endpoint.rmdir()
        await daemon.worker(is_ready)
    assert host.log.splitlines()[0] == (
        f"{host.endpoint} is a directory, not a socket: remove it (rmdir {host.endpoint}); trying"
        " again, at intervals of up to 10 s"
    )
