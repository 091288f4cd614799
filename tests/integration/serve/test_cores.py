"""Whole cores as devices: Granularity=core."""

from __future__ import annotations

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.host import RESOURCE, Host

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
    assert "core 1,9 is partly offline; reported to the kubelet" in host.log
    host.machine.set_online(9)
    await has(kubelet, plugin=6)
    assert len(registered.workers) == 1


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("configuration", ["[Plugin]\nGranularity=core\nCPUs=1-3,9-10\n"])
async def test_partly_isolated_core_is_logged(host: Host, kubelet: Kubelet) -> None:
    await has(kubelet, plugin=2)
    assert "core 3,11 is not offered as a whole: CPU 11 is not in this pool" in host.log
