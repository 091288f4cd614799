"""Whole cores as devices: Granularity=core."""

from __future__ import annotations

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import supervisor
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .conftest import has


@pytest.fixture
def host(roomy: Host) -> Host:
    return roomy


@pytest.fixture
def configuration() -> str:
    return "[Plugin]\nGranularity=core\n"


@pytest.mark.usefixtures("registered")
async def test_pod_gets_all_threads_of_its_cores(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=6)
    assert sorted(kubelet.plugins[RESOURCE].devices) == ["1", "2", "3", "5", "6", "7"]
    answer = await kubelet.admit(Pod("cores", {RESOURCE: 2}))
    assert kubelet.held_by("cores", RESOURCE) == {"1", "2"}
    assert answer[RESOURCE].envs == {"ISOLCPUS": "1-2,9-10"}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("configuration", ["[Plugin]\nGranularity=core\nThreads=one\n"])
async def test_threads_one_leaves_the_other_threads_unused(kubelet: Kubelet) -> None:
    await has(kubelet, plugin=6)
    granted = [
        (await kubelet.admit(Pod(f"pod-{number}", {RESOURCE: 3})))[RESOURCE].envs["ISOLCPUS"]
        for number in range(2)
    ]
    assert granted == ["1-3", "5-7"]


async def test_core_with_an_offline_thread_is_unhealthy(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    await has(kubelet, plugin=6)
    host.machine.set_offline(9)
    await has(kubelet, plugin=5)
    assert kubelet.plugins[RESOURCE].devices["1"].health == "Unhealthy"
    assert len(kubelet.plugins[RESOURCE].devices) == 6
    assert "core 1,9 is unhealthy: CPU 9 is offline; reported to the kubelet" in host.log
    host.machine.set_online(9)
    await has(kubelet, plugin=6)
    assert len(registered.workers) == 1


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("configuration", ["[Plugin]\nGranularity=core\nCPUs=1-3,9-10\n"])
async def test_partly_isolated_core_is_logged(host: Host, kubelet: Kubelet) -> None:
    await has(kubelet, plugin=2)
    assert "core 3,11 is not offered as a whole: CPU 11 is not in this pool" in host.log


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    "configuration", ["[Plugin]\nGranularity=core\nCPUs=1-3,9-10\nIncompleteCores=offer\n"]
)
async def test_rest_of_a_core_is_allocated_if_asked(host: Host, kubelet: Kubelet) -> None:
    await has(kubelet, plugin=3)
    # The kubelet is told of CPU 3 only: the device of the core 1,9 is still healthy.
    host.machine.set_offline(3, 9)
    await has(kubelet, plugin=2)
    assert "core 1,9 is offered as CPU 1; reported to the kubelet" in host.log
    answer = await kubelet.admit(Pod("cores", {RESOURCE: 2}))
    assert answer[RESOURCE].envs == {"ISOLCPUS": "1-2,10"}


async def test_offline_thread_has_the_same_effect_after_a_restart(
    host: Host, start_kubelet: StartKubelet, configuration: str
) -> None:
    host.machine.set_offline(9)
    async with supervisor(host, "serve", configuration).running():
        kubelet = await start_kubelet()
        await has(kubelet, plugin=5)
        assert kubelet.plugins[RESOURCE].devices["1"].health == "Unhealthy"
        reason = "core 1,9 is unhealthy: CPU 9 is offline and probably a thread of this core"
        assert reason in host.log
        host.machine.set_online(9)
        await has(kubelet, plugin=6)


@pytest.mark.parametrize("configuration", ["[Plugin]\nGranularity=core\nIncompleteCores=offer\n"])
async def test_core_keeps_its_number_for_the_next_kubelet(
    host: Host, start_kubelet: StartKubelet, configuration: str
) -> None:
    host.machine.set_offline(*range(8), 9)  # no core is complete: nothing can be inferred
    async with supervisor(host, "serve", configuration).running():
        kubelet = await start_kubelet()
        await has(kubelet, plugin=5)
        host.machine.set_online(9)
        await has(kubelet, plugin=6)
        host.machine.set_online(1)
        await until(
            lambda: "core 1,9 has the device id 9 until the daemon is restarted" in host.log
        )
        await kubelet.stop()
        kubelet = await start_kubelet()
        await has(kubelet, plugin=6)
        assert sorted(kubelet.plugins[RESOURCE].devices, key=int) == [
            "9",
            "10",
            "11",
            "13",
            "14",
            "15",
        ]
