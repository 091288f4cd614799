"""The CPUs that pods get, with the calls of a real kubelet, and invalid calls."""

from __future__ import annotations

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.host import RESOURCE, Host

from .conftest import DPDK, has

pytestmark = pytest.mark.usefixtures("registered")


@pytest.fixture
def host(roomy: Host) -> Host:
    return roomy


async def test_pod_gets_siblings_in_environment_and_annotation(kubelet: Kubelet) -> None:
    answer = (await kubelet.admit(Pod("forwarder", {RESOURCE: 2})))[RESOURCE]
    assert answer.envs == {"ISOLCPUS": "1,9"}
    assert answer.annotations == {RESOURCE: "1,9"}
    assert list(answer.devices) == []  # the simulated host has no cpuid device


@pytest.mark.parametrize("topology_policy", ["none", "single-numa-node"])
async def test_pods_fill_one_numa_node_before_the_next(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=12)
    for name, cpus in (
        ("first", "1-2,9-10"),
        ("second", "5-6,13-14"),
        ("third", "3,11"),
        ("fourth", "7,15"),
    ):
        size = 2 if "-" not in cpus else 4
        answer = await kubelet.admit(Pod(name, {RESOURCE: size}))
        assert answer[RESOURCE].envs == {"ISOLCPUS": cpus}


async def test_pod_may_span_numa_nodes_without_a_policy(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=12)
    answer = await kubelet.admit(Pod("wide", {RESOURCE: 8}))
    assert answer[RESOURCE].envs == {"ISOLCPUS": "1-3,5,9-11,13"}


@pytest.mark.parametrize("topology_policy", ["single-numa-node"])
async def test_single_numa_node_rejects_a_pod_larger_than_a_node(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=12)
    with pytest.raises(AdmissionError, match="Topology locality"):
        await kubelet.admit(Pod("wide", {RESOURCE: 8}))
    assert kubelet.pods["wide"].startswith("Failed: TopologyAffinityError: ")


@pytest.mark.parametrize("topology_policy", ["single-numa-node"])
@pytest.mark.parametrize("configuration", [f"[Pool dpdk]\nResourceName={DPDK}\nCPUs=5,13\n"])
async def test_both_resources_come_from_one_numa_node(kubelet: Kubelet) -> None:
    """The pool has CPUs of node 1 only, so the pod's other CPUs come from node 1, too."""
    await has(kubelet, plugin=10, dpdk=2)
    answer = await kubelet.admit(Pod("both", {RESOURCE: 2, DPDK: 2}))
    assert answer[DPDK].envs == {"ISOLCPUS_DPDK": "5,13"}
    assert answer[RESOURCE].envs == {"ISOLCPUS": "6,14"}


@pytest.mark.parametrize("configuration", ["[Plugin]\nPlacement=spread\n"])
async def test_spread_placement_reaches_the_kubelet(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=12)
    answer = await kubelet.admit(Pod("spread", {RESOURCE: 3}))
    assert answer[RESOURCE].envs == {"ISOLCPUS": "1-3"}


@pytest.mark.parametrize(
    ("available", "must", "size", "sentence"),
    [
        (["1", "99"], ["99"], 1, f"{RESOURCE} has no device 99"),
        (["1", "2"], ["3"], 2, "device 3 must be included but is not available"),
        (["1", "2", "3"], ["1", "2"], 1, "1 devices requested, of 3 available with 2 that must"),
        (["1", "2"], [], 3, "3 devices requested, of 2 available"),
        (["1", "2"], [], 0, "0 devices requested, of 2 available"),
        (["1", "2"], [], -4, "-4 devices requested, of 2 available"),
    ],
)
async def test_invalid_request_gets_an_error_and_the_daemon_continues(
    host: Host,
    kubelet: Kubelet,
    registered: Supervisor,
    available: list[str],
    must: list[str],
    size: int,
    sentence: str,
) -> None:
    await has(kubelet, plugin=12)
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        plugin = rpc.DevicePluginStub(channel)
        request = api.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plugin.GetPreferredAllocation(
                api.PreferredAllocationRequest(container_requests=[request])
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert str(caught.value.details()).startswith(sentence)
        good = api.ContainerPreferredAllocationRequest(
            available_deviceIDs=["1", "2", "10", "11"],
            must_include_deviceIDs=["10"],
            allocation_size=2,
        )
        answer = await plugin.GetPreferredAllocation(
            api.PreferredAllocationRequest(container_requests=[good])
        )
        assert [list(one.deviceIDs) for one in answer.container_responses] == [["2", "10"]]
    host.machine.set_offline(9)
    await has(kubelet, plugin=11)
    assert (kubelet.registrations, len(registered.workers)) == (1, 1)
