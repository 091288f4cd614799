"""Several resources of one daemon."""

from __future__ import annotations

import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import is_ready, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host

from .conftest import DPDK, TWO_POOLS, has


@pytest.fixture
def host(roomy: Host) -> Host:
    return roomy


@pytest.fixture
def configuration() -> str:
    return TWO_POOLS


class PickyKubelet(Kubelet):
    """Rejects the second pool."""

    async def connect(self, request: api.RegisterRequest) -> None:
        if request.resource_name == DPDK:
            raise ValueError("dpdk is not supported")
        await super().connect(request)


REFUSED = (
    f"Rejected by the kubelet: dpdk is not supported. Registered {RESOURCE}: 6 devices, 0 unhealthy"
)


async def test_all_resources_are_registered_with_the_same_kubelet(
    host: Host, start_kubelet: StartKubelet
) -> None:
    await start_kubelet(kind=PickyKubelet)
    async with supervisor(host, "serve", TWO_POOLS).running() as daemon:
        await daemon.until(lambda run: run.status == REFUSED)
        # The first kubelet still runs, and so does its ListAndWatch stream.
        second = await start_kubelet()
        await has(second, plugin=6, dpdk=6)
        assert len(daemon.workers) == 2


async def test_one_process_registers_every_pool(host: Host, kubelet: Kubelet) -> None:
    async with registered_with(supervisor(host, "serve", TWO_POOLS), kubelet) as daemon:
        await has(kubelet, plugin=6, dpdk=6)
        both = f"{RESOURCE}: 6 devices, 0 unhealthy; {DPDK}: 6 devices, 0 unhealthy"
        run = await daemon.until(lambda run: run.status == f"Registered {both}")
        assert (kubelet.registrations, len(daemon.workers)) == (2, 1)
        mark = daemon.runtime_dir / "registered"
        assert mark.stat().st_mtime_ns == host.kubelet_socket.stat().st_mtime_ns
        answer = await kubelet.admit(Pod("both", {RESOURCE: 2, DPDK: 2}))
        assert answer[RESOURCE].envs == {"ISOLCPUS": "5,13"}
        assert answer[DPDK].envs == {"ISOLCPUS_DPDK": "1,9"}
        assert answer[DPDK].annotations == {DPDK: "1,9"}
    assert run.exit_status == 0
    assert sorted(path.name for path in host.device_plugins.glob("*.com-*")) == []


async def test_next_kubelet_gets_all_pools(
    serving: Supervisor, start_kubelet: StartKubelet
) -> None:
    worker = None
    for number in range(2):
        worker = await serving.worker(is_ready, other_than=worker)
        kubelet = await start_kubelet(Pod(f"static-{number}", {RESOURCE: 1, DPDK: 1}))
        await kubelet.until(lambda kubelet=kubelet: bool(kubelet.pods))  # type: ignore[misc]
        assert kubelet.pods == {f"static-{number}": "Running"}
        kubelet.delete(f"static-{number}")
        await kubelet.stop()


async def test_rejection_of_one_pool_leaves_the_other_working(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet(kind=PickyKubelet)
    async with supervisor(host, "serve", TWO_POOLS).running() as daemon:
        await has(kubelet, plugin=6)
        first = await daemon.worker(lambda worker: worker.status == REFUSED)
        assert f"rejected the registration of {DPDK}: dpdk is not supported" in host.log
        # There is no mark until all resources are registered.
        assert not (daemon.runtime_dir / "registered").exists()
        await kubelet.stop()
        await daemon.worker(is_ready, other_than=first)
        await has(await start_kubelet(), plugin=6, dpdk=6)


@pytest.mark.usefixtures("registered")
async def test_offline_cpu_is_unhealthy_in_its_own_pool_only(host: Host, kubelet: Kubelet) -> None:
    await has(kubelet, plugin=6, dpdk=6)
    host.machine.set_offline(10)
    await has(kubelet, plugin=6, dpdk=5)
    assert kubelet.plugins[DPDK].devices["10"].health == "Unhealthy"


@pytest.mark.usefixtures("registered")
async def test_rejected_pod_keeps_no_device(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=6, dpdk=6)
    with pytest.raises(AdmissionError, match="Requested: 7, Available: 6"):
        await kubelet.admit(Pod("greedy", {RESOURCE: 2, DPDK: 7}))
    assert kubelet.held_by("greedy", RESOURCE) == frozenset()
    await kubelet.admit(Pod("next", {RESOURCE: 6}))
