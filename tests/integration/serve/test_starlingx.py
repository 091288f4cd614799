"""Replacing StarlingX's Go plugin by the daemon, and back: pods keep their CPUs."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from isolcpus_dp import config
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.host import machine
from isolcpus_dp.nri import pinning
from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet, Pod
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, is_ready, is_registered, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

ROOT = Path(__file__).parents[3]

# A kubelet's checkpoint with the Go plugin: the pod owns CPUs 1 and 9. AllocResp, in base64, has
# /dev/cpu/1/cpuid and /dev/cpu/9/cpuid, and nothing else.
OLD_CHECKPOINT = (
    '{"Data":{"PodDeviceEntries":[{"PodUID":"old","ContainerName":"forwarder",'
    '"ResourceName":"windriver.com/isolcpus","DeviceIDs":{"0":["9","1"]},"AllocResp":'
    '"GicKEC9kZXYvY3B1LzEvY3B1aWQSEC9kZXYvY3B1LzEvY3B1aWQaAXI'
    'aJwoQL2Rldi9jcHUvOS9jcHVpZBIQL2Rldi9jcHUvOS9jcHVpZBoBcg=="}],'
    '"RegisteredDevices":{"windriver.com/isolcpus":["5","13","9","1"]}},"Checksum":2164337861}'
)


def cpuid_nodes(*cpus: int) -> api.ContainerAllocateResponse:
    """The Go plugin's answer to Allocate."""
    nodes = [f"/dev/cpu/{cpu}/cpuid" for cpu in cpus]
    return api.ContainerAllocateResponse(
        devices=[
            api.DeviceSpec(container_path=node, host_path=node, permissions="r") for node in nodes
        ]
    )


class GoPlugin(rpc.DevicePluginServicer):
    """Behaves like the Go plugin: all isolated CPUs, always healthy, and no preferences."""

    async def GetDevicePluginOptions(
        self, request: api.Empty, context: Context
    ) -> api.DevicePluginOptions:
        return api.DevicePluginOptions()

    async def ListAndWatch(
        self, request: api.Empty, context: Context
    ) -> AsyncIterator[api.ListAndWatchResponse]:
        nodes = {"1": 0, "9": 0, "5": 1, "13": 1}
        yield api.ListAndWatchResponse(
            devices=[
                api.Device(
                    ID=device_id,
                    health="Healthy",
                    topology=api.TopologyInfo(nodes=[api.NUMANode(ID=node)]),
                )
                for device_id, node in nodes.items()
            ]
        )
        await asyncio.Event().wait()

    async def Allocate(
        self, request: api.AllocateRequest, context: Context
    ) -> api.AllocateResponse:
        return api.AllocateResponse(
            container_responses=[
                cpuid_nodes(*map(int, one.devices_ids)) for one in request.container_requests
            ]
        )

    async def GetPreferredAllocation(
        self, request: api.PreferredAllocationRequest, context: Context
    ) -> api.PreferredAllocationResponse:
        raise NotImplementedError

    async def PreStartContainer(
        self, request: api.PreStartContainerRequest, context: Context
    ) -> api.PreStartContainerResponse:
        raise NotImplementedError


@contextlib.asynccontextmanager
async def go_plugin(host: Host) -> AsyncIterator[None]:
    """Runs the Go plugin, registered with the running kubelet."""
    server = grpc.aio.server()
    rpc.add_DevicePluginServicer_to_server(GoPlugin(), server)
    server.add_insecure_port(f"unix:{host.endpoint}")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{host.kubelet_socket}") as channel:
        await rpc.RegistrationStub(channel).Register(
            api.RegisterRequest(
                version="v1beta1",
                endpoint="windriver.com-isolcpus.sock",
                resource_name="windriver.com/isolcpus",
            )
        )
    try:
        yield
    finally:
        await server.stop(grace=None)


@pytest.fixture
def old_checkpoint(host: Host) -> None:
    (host.device_plugins / "kubelet_internal_checkpoint").write_text(OLD_CHECKPOINT)


def checkpoint(host: Host) -> Any:
    file = host.device_plugins / "kubelet_internal_checkpoint"
    return json.loads(file.read_text())["Data"]


def health(kubelet: Kubelet) -> dict[str, str]:
    return {
        device_id: device.health for device_id, device in kubelet.plugins[RESOURCE].devices.items()
    }


@pytest.mark.usefixtures("old_checkpoint")
async def test_pod_of_the_go_plugin_keeps_its_cpus(host: Host, kubelet: Kubelet) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet):
        assert kubelet.held_by("old", RESOURCE) == {"1", "9"}
        assert health(kubelet) == dict.fromkeys(("1", "5", "9", "13"), "Healthy")
        new = await kubelet.admit(Pod("new", {RESOURCE: 2}))
        assert new[RESOURCE].annotations == {RESOURCE: "5,13"}
        with pytest.raises(AdmissionError, match="Requested: 1, Available: 0"):
            await kubelet.admit(Pod("late", {RESOURCE: 1}))
    assert [(one["PodUID"], one["DeviceIDs"]) for one in checkpoint(host)["PodDeviceEntries"]] == [
        ("old", {"0": ["1", "9"]}),
        ("new", {"1": ["13", "5"]}),
    ]


@pytest.mark.usefixtures("old_checkpoint", "registered")
async def test_restarted_go_plugin_container_gets_its_old_answer(
    host: Host, kubelet: Kubelet
) -> None:
    answer = (await kubelet.admit(Pod("old", {RESOURCE: 2})))[RESOURCE]
    assert answer == cpuid_nodes(1, 9)
    assert "allocated" not in host.log


@pytest.mark.usefixtures("old_checkpoint", "registered")
async def test_go_plugin_container_is_pinned_once_its_pod_is_recreated(
    host: Host, kubelet: Kubelet
) -> None:
    present = machine.read(host.machine.root)
    rules = pinning.rules(present, config.Config(), present.online, frozenset())
    old = (await kubelet.admit(Pod("old", {RESOURCE: 2})))[RESOURCE]
    # Without a cpuset, and with the one that a patched kubelet sets.
    for cpuset in ("", "1,9"):
        decision = pinning.decide(rules, old.annotations, cpuset)
        assert decision.cpus == frozenset({0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15})
        assert decision.owned == frozenset()
    kubelet.delete("old")
    new = (await kubelet.admit(Pod("new", {RESOURCE: 2})))[RESOURCE]
    assert pinning.decide(rules, new.annotations, "").cpus == frozenset({1, 9})


@pytest.mark.usefixtures("old_checkpoint")
async def test_dead_socket_of_the_go_plugin_is_replaced(host: Host, kubelet: Kubelet) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(host.endpoint))
        dead.listen()
    async with registered_with(supervisor(host, "serve"), kubelet) as daemon:
        assert kubelet.held_by("old", RESOURCE) == {"1", "9"}
        assert len(daemon.workers) == 1


@pytest.mark.usefixtures("old_checkpoint")
async def test_daemon_waits_until_the_go_plugin_ends(host: Host, kubelet: Kubelet) -> None:
    daemon = supervisor(host, "serve")
    async with contextlib.AsyncExitStack() as stack:
        async with go_plugin(host):
            await has_devices(kubelet)
            await stack.enter_async_context(daemon.running())
            await daemon.until(lambda run: "Failed" in run.status)
            assert f"{host.endpoint} is held by process {os.getpid()} (" in host.log
            assert "stop that process first" in host.log
            assert health(kubelet) == dict.fromkeys(("1", "5", "9", "13"), "Healthy")
        await daemon.worker(is_registered)
        await has_devices(kubelet)
        assert kubelet.registrations == 2
        assert kubelet.held_by("old", RESOURCE) == {"1", "9"}


async def test_go_plugin_keeps_what_the_daemon_allocated(
    host: Host, kubelet: Kubelet, start_kubelet: StartKubelet
) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet):
        await kubelet.admit(Pod("pod", {RESOURCE: 2}))
    [entry] = checkpoint(host)["PodDeviceEntries"]
    assert (entry["ResourceName"], entry["DeviceIDs"]) == (RESOURCE, {"0": ["1", "9"]})
    assert checkpoint(host)["RegisteredDevices"] == {RESOURCE: ["1", "13", "5", "9"]}
    async with go_plugin(host):
        await has_devices(kubelet)
        assert kubelet.held_by("pod", RESOURCE) == {"1", "9"}
    await kubelet.stop()
    kubelet = await start_kubelet()
    async with go_plugin(host):
        await has_devices(kubelet)
        assert kubelet.held_by("pod", RESOURCE) == {"1", "9"}
        kept = (await kubelet.admit(Pod("pod", {RESOURCE: 2})))[RESOURCE]
        assert kept.envs == {"ISOLCPUS": "1,9"}
        assert kept.annotations == {RESOURCE: "1,9"}
        new = (await kubelet.admit(Pod("new", {RESOURCE: 2})))[RESOURCE]
        assert sorted(one.host_path for one in new.devices) == [
            "/dev/cpu/13/cpuid",
            "/dev/cpu/5/cpuid",
        ]


async def test_process_monitor_has_nothing_to_restart_when_kubelets_restart(
    host: Host, kubelet: Kubelet, start_kubelet: StartKubelet
) -> None:
    """StarlingX's process monitor restarts a service when the process in its pidfile ends."""
    async with registered_with(supervisor(host, "serve"), kubelet) as daemon:
        name = Path(monitor_file()["process"]["pidfile"]).name
        pid = int((daemon.runtime_dir / name).read_text())
        monitored = os.pidfd_open(pid)
        try:
            for _ in range(3):
                worker = daemon.workers[-1]
                await kubelet.stop()
                await daemon.worker(is_ready, other_than=worker)
                kubelet = await start_kubelet()
                await has_devices(kubelet)
                assert select.select([monitored], [], [], 0)[0] == []
                assert int((daemon.runtime_dir / name).read_text()) == pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: bool(select.select([monitored], [], [], 0)[0]))
        finally:
            os.close(monitored)


def monitor_file() -> configparser.ConfigParser:
    """The configuration of StarlingX's process monitor for the daemon."""
    monitor = configparser.ConfigParser()
    monitor.read(ROOT / "packaging/pmon.d/isolcpus-dp.conf")
    return monitor


def test_process_monitor_file_names_service_and_pidfile() -> None:
    monitor = monitor_file()
    assert monitor.sections() == ["process"]
    assert dict(monitor["process"]) == {
        "process": "isolcpus-dp",
        "service": "isolcpus-dp",
        "pidfile": "/run/isolcpus-dp/isolcpus-dp.pid",
        "style": "lsb",
        "severity": "major",
        "restarts": "3",
        "interval": "5",
        "startuptime": "5",
        "debounce": "20",
        "subfunction": "worker",
    }
    unit = (ROOT / "systemd/isolcpus-dp.service").read_text().splitlines()
    assert "RuntimeDirectory=isolcpus-dp" in unit


def test_commands_of_the_page_name_shipped_files() -> None:
    page = (ROOT / "docs/starlingx.md").read_text()
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    commands = "".join(textwrap.dedent(block) for _, block in blocks)
    subprocess.run(["sh", "-n"], input=commands, text=True, check=True)
    units = {"isolcpus-dp.service", "isolcpus-dp-kubelet.path"}
    assert set(re.findall(r"isolcpus-dp[\w-]*\.(?:service|path)", commands)) == units
    assert all((ROOT / "systemd" / unit).exists() for unit in units)
    shipped = "packaging/pmon.d/isolcpus-dp.conf usr/share/starlingx/pmon.d\n"
    assert shipped in (ROOT / "packaging/deb/isolcpus-dp.install").read_text()
    assert "ln -s /usr/share/starlingx/pmon.d/isolcpus-dp.conf /etc/pmon.d/\n" in commands
