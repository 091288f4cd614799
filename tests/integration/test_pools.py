"""Several resources of one daemon, whole cores as devices, and NUMA alignment, in a real kubelet's
order of calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet, Pod
from isolcpus_dp.simulator.machine import MadeUpMachine, regular

from .conftest import RESOURCE, Host

StartKubelet = Callable[..., Awaitable[Kubelet]]

DPDK = "example.com/isolcpus-dpdk"
TWO_POOLS = f"""[Pool dpdk]
ResourceName={DPDK}
CPUs=1-3,9-11
"""


@pytest.fixture
def roomy(host: Host) -> Host:
    """2 NUMA nodes of 4 cores with 2 threads, three cores of each isolated: 9 is 1's sibling."""
    isolated = {1, 2, 3, 9, 10, 11, 5, 6, 7, 13, 14, 15}
    host.machine = MadeUpMachine(host.folder / "roomy", regular(2, 4, 2), isolated)
    return host


async def has(kubelet: Kubelet, **healthy: int) -> None:
    names = {"plugin": RESOURCE, "dpdk": DPDK}
    await kubelet.until(
        lambda: all(kubelet.allocatable(names[name]) == count for name, count in healthy.items())
    )


class HalfRefusingKubelet(Kubelet):
    """Takes all but the further pool."""

    async def connect(self, request: api.RegisterRequest) -> None:
        if request.resource_name == DPDK:
            raise ValueError("one is enough")
        await super().connect(request)


async def test_resources_are_all_registered_with_one_and_the_same_kubelet(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    await start_kubelet(kind=HalfRefusingKubelet)
    async with roomy.daemon(TWO_POOLS).running() as daemon:
        await daemon.until(
            lambda run: (
                run.status
                == f"Rejected by the kubelet: one is enough. Registered {RESOURCE}: 6 devices,"
                " 0 unhealthy"
            )
        )
        # The first one still lives, and with it the stream of what it has taken.
        second = await start_kubelet()
        await has(second, plugin=6, dpdk=6)
        assert len(daemon.runs) == 2


async def test_every_pool_is_registered_by_one_process(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon(TWO_POOLS).running() as daemon:
        await has(kubelet, plugin=6, dpdk=6)
        run = await daemon.until(
            lambda run: (
                run.status
                == (
                    f"Registered {RESOURCE}: 6 devices, 0 unhealthy; {DPDK}: 6 devices, 0 unhealthy"
                )
            )
        )
        assert (kubelet.registrations, len(daemon.runs)) == (2, 1)
        mark = daemon.runtime_dir / "registered"
        assert mark.stat().st_mtime_ns == roomy.socket.stat().st_mtime_ns
        answer = await kubelet.admit(Pod("both", {RESOURCE: 2, DPDK: 2}))
        assert answer[RESOURCE].envs == {"ISOLCPUS": "5,13"}
        assert answer[DPDK].envs == {"ISOLCPUS_DPDK": "1,9"}
        assert answer[DPDK].annotations == {DPDK: "1,9"}
    assert run.exit_status == 0
    assert sorted(path.name for path in roomy.socket.parent.glob("*.com-*")) == []


async def test_all_pools_are_there_for_the_next_kubelet(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    async with roomy.daemon(TWO_POOLS).running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        for number in range(2):
            before = daemon.current
            kubelet = await start_kubelet(Pod(f"static-{number}", {RESOURCE: 1, DPDK: 1}))
            await kubelet.until(lambda kubelet=kubelet: bool(kubelet.pods))  # type: ignore[misc]
            assert kubelet.pods == {f"static-{number}": "Running"}
            kubelet.delete(f"static-{number}")
            await kubelet.stop()
            await daemon.until(lambda run, before=before: run is not before and run.ready > 0)  # type: ignore[misc]


class PickyKubelet(Kubelet):
    """Refuses one of the pools."""

    async def connect(self, request: api.RegisterRequest) -> None:
        if request.resource_name == DPDK:
            raise ValueError("dpdk is not welcome")
        await super().connect(request)


async def test_refusal_of_one_pool_leaves_the_other_at_work(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(kind=PickyKubelet)
    async with roomy.daemon(TWO_POOLS).running() as daemon:
        await has(kubelet, plugin=6)
        status = (
            f"Rejected by the kubelet: dpdk is not welcome. Registered {RESOURCE}: 6 devices,"
            " 0 unhealthy"
        )
        first = await daemon.until(lambda run: run.status == status)
        assert f"refused to register {DPDK}: dpdk is not welcome" in roomy.log
        # Not marked: the path unit compares only once all are registered.
        assert not (daemon.runtime_dir / "registered").exists()
        await kubelet.stop()
        await daemon.until(lambda run: run is not first and run.ready > 0)
        await has(await start_kubelet(), plugin=6, dpdk=6)


async def test_cpu_that_goes_offline_is_told_to_its_own_pool(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon(TWO_POOLS).running():
        await has(kubelet, plugin=6, dpdk=6)
        roomy.machine.set_offline(10)
        await has(kubelet, plugin=6, dpdk=5)
        assert kubelet.plugins[DPDK].devices["10"].health == "Unhealthy"


# Granularity=core


async def test_pod_gets_all_threads_of_its_cores(roomy: Host, start_kubelet: StartKubelet) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon("[Plugin]\nGranularity=core\n").running():
        await has(kubelet, plugin=6)
        assert sorted(kubelet.plugins[RESOURCE].devices) == ["1", "2", "3", "5", "6", "7"]
        answer = await kubelet.admit(Pod("cores", {RESOURCE: 2}))
        assert kubelet.held_by("cores", RESOURCE) == {"1", "2"}
        assert answer[RESOURCE].envs == {"ISOLCPUS": "1-2,9-10"}


async def test_pod_gets_one_thread_of_its_cores_and_nobody_the_others(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon("[Plugin]\nGranularity=core\nThreads=one\n").running():
        await has(kubelet, plugin=6)
        granted = [
            (await kubelet.admit(Pod(f"pod-{number}", {RESOURCE: 3})))[RESOURCE].envs["ISOLCPUS"]
            for number in range(2)
        ]
        assert granted == ["1-3", "5-7"]


async def test_core_is_unhealthy_while_one_of_its_threads_is_offline(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon("[Plugin]\nGranularity=core\n").running() as daemon:
        await has(kubelet, plugin=6)
        roomy.machine.set_offline(9)
        await has(kubelet, plugin=5)
        assert kubelet.plugins[RESOURCE].devices["1"].health == "Unhealthy"
        assert len(kubelet.plugins[RESOURCE].devices) == 6
        assert "core 1,9 is partly offline; reported to the kubelet" in roomy.log
        roomy.machine.set_online(9)
        await has(kubelet, plugin=6)
        assert len(daemon.runs) == 1


async def test_core_that_is_not_isolated_as_a_whole_is_named(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    configuration = "[Plugin]\nGranularity=core\nCPUs=1-3,9-10\n"
    async with roomy.daemon(configuration).running():
        await has(kubelet, plugin=2)
        assert "core 3,11 is not offered as a whole: CPU 11 is not in this pool" in roomy.log


# NUMA alignment


@pytest.mark.parametrize("policy", ["none", "single-numa-node"])
async def test_pods_fill_one_node_and_then_the_other(
    roomy: Host, start_kubelet: StartKubelet, policy: str
) -> None:
    kubelet = await start_kubelet(topology_policy=policy)
    async with roomy.daemon().running():
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


async def test_without_a_policy_a_pod_may_span_nodes(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon().running():
        await has(kubelet, plugin=12)
        answer = await kubelet.admit(Pod("wide", {RESOURCE: 8}))
        assert answer[RESOURCE].envs == {"ISOLCPUS": "1-3,5,9-11,13"}


async def test_refused_pod_keeps_nothing_of_what_it_was_given(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon(TWO_POOLS).running():
        await has(kubelet, plugin=6, dpdk=6)
        with pytest.raises(AdmissionError, match="Requested: 7, Available: 6"):
            await kubelet.admit(Pod("greedy", {RESOURCE: 2, DPDK: 7}))
        assert kubelet.held_by("greedy", RESOURCE) == frozenset()
        await kubelet.admit(Pod("next", {RESOURCE: 6}))


async def test_single_numa_node_refuses_what_no_node_has(
    roomy: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(topology_policy="single-numa-node")
    async with roomy.daemon().running():
        await has(kubelet, plugin=12)
        with pytest.raises(AdmissionError, match="Topology locality"):
            await kubelet.admit(Pod("wide", {RESOURCE: 8}))
        assert kubelet.pods["wide"].startswith("Failed: TopologyAffinityError: ")


async def test_one_node_for_both_resources(roomy: Host, start_kubelet: StartKubelet) -> None:
    """The pool has CPUs of node 1 only, so the pod's other CPUs come from there, too."""
    configuration = f"[Pool dpdk]\nResourceName={DPDK}\nCPUs=5,13\n"
    kubelet = await start_kubelet(topology_policy="single-numa-node")
    async with roomy.daemon(configuration).running():
        await has(kubelet, plugin=10, dpdk=2)
        answer = await kubelet.admit(Pod("both", {RESOURCE: 2, DPDK: 2}))
        assert answer[DPDK].envs == {"ISOLCPUS_DPDK": "5,13"}
        assert answer[RESOURCE].envs == {"ISOLCPUS": "6,14"}


async def test_spread_is_heard_over_the_socket(roomy: Host, start_kubelet: StartKubelet) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon("[Plugin]\nPlacement=spread\n").running():
        await has(kubelet, plugin=12)
        answer = await kubelet.admit(Pod("spread", {RESOURCE: 3}))
        assert answer[RESOURCE].envs == {"ISOLCPUS": "1-3"}


# Wrong calls


@pytest.mark.parametrize(
    ("available", "must", "size", "sentence"),
    [
        (["1", "99"], [], 1, f"{RESOURCE} has no device 99"),
        (["1", "2"], ["3"], 2, "device 3 must be included but is not available"),
        (["1", "2", "3"], ["1", "2"], 1, "1 devices requested, of 3 available with 2 that must"),
        (["1", "2"], [], 3, "3 devices requested, of 2 available"),
        (["1", "2"], [], 0, "0 devices requested, of 2 available"),
        (["1", "2"], [], -4, "-4 devices requested, of 2 available"),
    ],
)
async def test_wrong_call_gets_a_sentence_and_all_else_goes_on(
    roomy: Host,
    start_kubelet: StartKubelet,
    available: list[str],
    must: list[str],
    size: int,
    sentence: str,
) -> None:
    kubelet = await start_kubelet()
    async with roomy.daemon().running() as daemon:
        await has(kubelet, plugin=12)
        async with grpc.aio.insecure_channel(f"unix:{roomy.endpoint}") as channel:
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
        roomy.machine.set_offline(9)
        await has(kubelet, plugin=11)
        assert (kubelet.registrations, len(daemon.runs)) == (1, 1)
