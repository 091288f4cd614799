"""Errors at the start of the device plugin, a second daemon, and the modules it loads."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import has_devices, is_ready, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.prelude import USED_UP_LIMITS


async def test_second_daemon_names_the_holder_of_the_socket(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    second = await asyncio.to_thread(
        subprocess.run, host.command("serve"), capture_output=True, text=True, timeout=20
    )
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith(
        f"{host.endpoint} is held by process {registered.workers[0].pid} ("
    )
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
    processes = [
        await asyncio.create_subprocess_exec(
            *host.command("serve"), stderr=asyncio.subprocess.DEVNULL
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


def test_exhausted_inotify_limits_are_a_one_line_error(host: Host) -> None:
    command = host.command("serve", prelude=USED_UP_LIMITS)
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "[Errno 24] Too many open files: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches"
    )
    assert "Traceback" not in result.stderr


def test_missing_device_plugin_directory_is_a_one_line_error(host: Host) -> None:
    shutil.rmtree(host.kubelet_dir)
    result = subprocess.run(host.command("serve"), capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"{host.device_plugins} cannot be opened: No such file or directory: it is the kubelet's"
        " directory for device plugins; see --kubelet-dir"
    )


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
