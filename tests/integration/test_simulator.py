"""The simulator's kubelet behaves like a real one towards plugins and operators."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from isolcpus_dp.api import podresources_pb2 as api
from isolcpus_dp.api import podresources_pb2_grpc as rpc
from isolcpus_dp.kubelet import podresources
from isolcpus_dp.simulator.kubelet import AdmissionError, Cause, Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from isolcpus_dp.simulator.timing import After, WhenReported
from tests.testbed.daemon import has_devices, is_ready, is_registered, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .conftest import StartKubelet

NOT_HEALTHY = (
    "Failed: UnexpectedAdmissionError: no healthy devices present;"
    f" cannot allocate unhealthy devices {RESOURCE}"
)
AT_ONCE = After(0)
PLAIN = Pod("plain", {RESOURCE: 2})
WITH_INIT = Pod("with-init", {RESOURCE: 2}, has_init_container=True)


async def admitted(kubelet: Kubelet, *pods: Pod) -> None:
    """Waits until the kubelet has decided on these pods."""
    await kubelet.until(lambda: {pod.name for pod in pods} <= kubelet.pods.keys())


@pytest.fixture
async def owners(host: Host, kubelet: Kubelet) -> None:
    """Two pods own CPUs and run; kubelet and device plugin have ended."""
    async with registered_with(supervisor(host, "serve"), kubelet):
        await kubelet.admit(PLAIN)
        await kubelet.admit(WITH_INIT)
        await kubelet.stop()


async def test_pod_of_a_resource_never_registered_runs_without_it(
    start_kubelet: StartKubelet,
) -> None:
    kubelet = await start_kubelet(PLAIN, admission=AT_ONCE)
    await admitted(kubelet, PLAIN)
    assert kubelet.pods == {"plain": "Running"}
    assert kubelet.held_by("plain", RESOURCE) == frozenset()
    assert kubelet.answers("plain") == {}


async def test_pod_fails_if_its_plugin_is_not_registered_again(
    host: Host, kubelet: Kubelet, start_kubelet: StartKubelet
) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet):
        await has_devices(kubelet)
    await kubelet.stop()
    kubelet = await start_kubelet(Pod("early", {RESOURCE: 1}), admission=AT_ONCE)
    assert kubelet.node_status()["capacity"] == {RESOURCE: 0}
    assert kubelet.node_status()["allocatable"] == {RESOURCE: 0}
    await admitted(kubelet, Pod("early", {}))
    assert kubelet.pods == {"early": NOT_HEALTHY}
    assert kubelet.causes == {"early": Cause.NOT_REPORTED}


@pytest.mark.usefixtures("owners")
async def test_ended_init_container_needs_the_plugin_at_a_restart(
    start_kubelet: StartKubelet,
) -> None:
    kubelet = await start_kubelet(PLAIN, WITH_INIT, admission=AT_ONCE)
    await admitted(kubelet, PLAIN, WITH_INIT)
    assert kubelet.pods == {"plain": "Running", "with-init": NOT_HEALTHY}
    assert kubelet.causes == {"with-init": Cause.NOT_REPORTED}
    assert kubelet.held_by("plain", RESOURCE) == {"1", "9"}
    assert kubelet.held_by("with-init", RESOURCE) == frozenset()


@pytest.mark.usefixtures("owners")
async def test_pod_with_ended_init_container_keeps_its_devices(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(WITH_INIT)
    async with registered_with(supervisor(host, "serve"), kubelet):
        await admitted(kubelet, WITH_INIT)
    assert kubelet.pods == {"with-init": "Running"}
    assert kubelet.held_by("with-init", RESOURCE) == {"5", "13"}
    assert kubelet.answers("with-init")[RESOURCE].envs == {"ISOLCPUS": "5,13"}
    assert host.log.count("allocated CPU 5,13") == 1


@pytest.mark.usefixtures("owners")
async def test_ended_init_container_fails_with_an_offline_cpu(
    host: Host, start_kubelet: StartKubelet
) -> None:
    host.machine.set_offline(1, 13)
    kubelet = await start_kubelet(PLAIN, WITH_INIT)
    async with registered_with(supervisor(host, "serve"), kubelet):
        await admitted(kubelet, PLAIN, WITH_INIT)
    assert kubelet.pods == {
        "plain": "Running",
        "with-init": "Failed: UnexpectedAdmissionError: previously allocated devices are no longer"
        f" healthy; cannot allocate unhealthy devices {RESOURCE}",
    }
    assert kubelet.causes == {"with-init": Cause.UNHEALTHY}


@pytest.mark.usefixtures("owners")
async def test_running_pod_does_not_wait_for_the_plugin(start_kubelet: StartKubelet) -> None:
    kubelet = await start_kubelet(PLAIN)
    await admitted(kubelet, PLAIN)
    assert kubelet.pods == {"plain": "Running"}
    assert kubelet.plugins == {}


async def test_static_pod_is_admitted_when_its_devices_are_reported(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(PLAIN)
    async with registered_with(supervisor(host, "serve"), kubelet):
        await admitted(kubelet, PLAIN)
    assert kubelet.pods == {"plain": "Running"}
    assert kubelet.held_by("plain", RESOURCE) == {"1", "9"}


@pytest.mark.usefixtures("owners")
async def test_static_pod_fails_if_the_plugin_never_comes(
    host: Host, start_kubelet: StartKubelet
) -> None:
    (host.containers / "plain").unlink()
    kubelet = await start_kubelet(PLAIN, admission=WhenReported(at_latest=0.01))
    await admitted(kubelet, PLAIN)
    assert kubelet.pods == {"plain": NOT_HEALTHY}


async def test_steps_of_a_registration_have_times(host: Host) -> None:
    kubelet = Kubelet(host.kubelet_dir, host.containers)
    assert kubelet.bound is None
    before = time.monotonic()
    await kubelet.start()
    try:
        async with supervisor(host, "serve").running():
            steps = await kubelet.registration(RESOURCE)
    finally:
        await kubelet.stop()
    assert kubelet.registrations == 1
    times = [steps.bound, steps.called, steps.connected, steps.answered, steps.reported]
    assert [before, *times] == sorted([before, *times])
    assert sum(steps.parts.values()) == pytest.approx(steps.seconds)
    assert steps.seconds == steps.reported - steps.bound


@pytest.mark.usefixtures("registered")
async def test_pod_that_requests_too_many_devices_fails(kubelet: Kubelet) -> None:
    with pytest.raises(AdmissionError, match="Requested: 5, Available: 4"):
        await kubelet.admit(Pod("greedy", {RESOURCE: 5}))


async def test_allocations_survive_a_kubelet_restart(
    host: Host, serving: Supervisor, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    await has_devices(kubelet)
    await kubelet.admit(Pod("first", {RESOURCE: 2}))
    assert kubelet.held_by("first", RESOURCE) == {"1", "9"}
    before = await serving.worker(is_registered)
    await kubelet.stop()
    await serving.worker(is_ready, other_than=before)
    kubelet = await start_kubelet()
    await has_devices(kubelet)
    assert kubelet.held_by("first", RESOURCE) == {"1", "9"}
    lister = podresources.Lister(lambda: host.kubelet_dir)
    allocations = await lister.allocations() or ()
    await lister.close()
    assert [(one.pod, set(one.ids)) for one in allocations] == [("first", {"1", "9"})]
    await kubelet.admit(Pod("second", {RESOURCE: 2}))
    assert kubelet.held_by("second", RESOURCE) == {"5", "13"}


@pytest.mark.usefixtures("registered")
async def test_pod_resources_report_the_owner_of_each_cpu(host: Host, kubelet: Kubelet) -> None:
    await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    path = host.kubelet_dir / "pod-resources" / "kubelet.sock"
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        lister = rpc.PodResourcesListerStub(channel)
        listed = await lister.List(api.ListPodResourcesRequest())
        offered = await lister.GetAllocatableResources(api.AllocatableResourcesRequest())
    [pod] = listed.pod_resources
    [devices] = pod.containers[0].devices
    assert (pod.name, pod.namespace) == ("owner", "default")
    assert (devices.resource_name, sorted(devices.device_ids)) == (RESOURCE, ["1", "9"])
    assert {one.device_ids[0]: one.topology.nodes[0].ID for one in offered.devices} == {
        "1": 0,
        "9": 0,
        "5": 1,
        "13": 1,
    }


@pytest.mark.usefixtures("registered")
async def test_status_shows_the_owners_of_cpus(host: Host, kubelet: Kubelet) -> None:
    await kubelet.admit(Pod("owner", {RESOURCE: 2}))
    shown = await asyncio.to_thread(
        subprocess.run, host.command("status", "--json"), capture_output=True, text=True, timeout=20
    )
    found = json.loads(shown.stdout)
    assert found["pools"][0]["cpus"] == {
        "isolated": "1,5,9,13",
        "healthy": "1,5,9,13",
        "allocated": "1,9",
        "free": "5,13",
    }
    assert [one["pod"] for one in found["allocations"]] == ["owner"]
    assert shown.returncode == (0 if found["well"] else 1)


# The kubelet as a process


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of $NOTIFY_SOCKET, which is at notify in tmp_path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
        bound.bind(str(tmp_path / "notify"))
        yield bound


def start_process(host: Host, *options: str, notify: Path | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "isolcpus_dp.simulator", *options]
    command += ["--kubelet-dir", str(host.kubelet_dir), "--containers", str(host.containers)]
    return subprocess.Popen(command, env={**os.environ, "NOTIFY_SOCKET": str(notify or "")})


@pytest.mark.usefixtures("owners")
async def test_kubelet_as_a_process_admits_the_pods_it_is_given(host: Host) -> None:
    pods = ["--pod", "plain=2", "--init-pod", "with-init=2", "--pod", "new=1"]
    process = start_process(host, *pods, "--admit-after", "0")
    status = host.kubelet_dir / "node-status.json"
    try:
        await until(lambda: status.exists() and "new" in status.read_text())
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert json.loads(status.read_text())["pods"] == {
        "plain": "Running",
        "with-init": NOT_HEALTHY,
        "new": NOT_HEALTHY,
    }


async def test_kubelet_of_type_notify_is_ready_before_its_socket(
    host: Host, tmp_path: Path, notify_socket: socket.socket
) -> None:
    loop = asyncio.get_running_loop()
    options = ("--notify", "--notify-lead", "600000")
    process = start_process(host, *options, notify=tmp_path / "notify")
    try:
        assert await asyncio.wait_for(loop.sock_recv(notify_socket, 100), 20) == b"READY=1"
        assert not host.kubelet_socket.exists()
    finally:
        process.terminate()
        assert process.wait(20) == 0
    process = start_process(host, "--notify", "--seed", "1", notify=tmp_path / "notify")
    try:
        assert await asyncio.wait_for(loop.sock_recv(notify_socket, 100), 20) == b"READY=1"
        await until(host.kubelet_socket.exists)
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--pod", "forwarder", "'forwarder' is not NAME=N, such as forwarder=2"),
        ("--init-pod", "=2", "'=2' is not NAME=N, such as forwarder=2"),
        ("--admit-after", "soon", "'soon' is not milliseconds, idle or busy"),
    ],
)
def test_wrong_option_of_the_simulator_is_one_sentence(
    option: str, value: str, sentence: str
) -> None:
    command = [sys.executable, "-m", "isolcpus_dp.simulator", option, value]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert result.stderr.endswith(f"error: argument {option}: {sentence}\n")
