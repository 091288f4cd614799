"""The simulator's kubelet behaves like a real one towards plugins and operators."""

from __future__ import annotations

import asyncio
import json
import subprocess

import grpc
import pytest

from isolcpus_dp.api import podresources_pb2 as api
from isolcpus_dp.api import podresources_pb2_grpc as rpc
from isolcpus_dp.kubelet import podresources
from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import has_devices, is_ready, is_registered, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host

from .conftest import StartKubelet


async def test_pod_fails_if_its_device_plugin_is_not_registered(
    start_kubelet: StartKubelet,
) -> None:
    kubelet = await start_kubelet(Pod("early", {RESOURCE: 1}))
    await kubelet.until(lambda: bool(kubelet.pods))
    assert kubelet.pods == {
        "early": f"Failed: UnexpectedAdmissionError: cannot allocate unregistered device {RESOURCE}"
    }


async def test_restarted_kubelet_has_no_devices_until_registration(
    host: Host, kubelet: Kubelet, start_kubelet: StartKubelet
) -> None:
    async with registered_with(supervisor(host, "serve"), kubelet):
        await has_devices(kubelet)
    await kubelet.stop()
    kubelet = await start_kubelet(Pod("early", {RESOURCE: 1}))
    assert kubelet.node_status()["capacity"] == {RESOURCE: 0}
    assert kubelet.node_status()["allocatable"] == {RESOURCE: 0}
    await kubelet.until(lambda: bool(kubelet.pods))
    assert kubelet.pods == {
        "early": "Failed: UnexpectedAdmissionError: no healthy devices present;"
        f" cannot allocate unhealthy devices {RESOURCE}"
    }


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
    allocations = await podresources.ask(host.kubelet_dir)
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
