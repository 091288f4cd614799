"""Pools that are selected by attribute, while the machine changes."""

from __future__ import annotations

import os
import signal

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import is_registered
from tests.testbed.host import RESOURCE, Host
from tests.testbed.wait import until

from .conftest import DPDK, has


@pytest.fixture
def host(roomy: Host) -> Host:
    device = roomy.machine.root / "bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    (device / "numa_node").write_text("1\n")
    return roomy


@pytest.fixture
def configuration() -> str:
    return f"[Pool dpdk]\nResourceName={DPDK}\nNear=0000:3b:00.0\nCount=4\n"


async def test_pool_stays_when_its_device_and_cpus_go_away(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    await has(kubelet, plugin=8, dpdk=4)
    assert set(kubelet.plugins[DPDK].devices) == {"5", "6", "13", "14"}
    (host.machine.root / "bus/pci/devices/0000:3b:00.0/numa_node").write_text("0\n")
    host.machine.set_offline(5, 13)
    await has(kubelet, plugin=8, dpdk=2)
    # The next worker finds the machine as it is now, but the pools as they were.
    first = registered.workers[0]
    os.kill(first.pid, signal.SIGKILL)
    await registered.worker(is_registered, other_than=first)
    await has(kubelet, plugin=8, dpdk=2)
    assert set(kubelet.plugins[DPDK].devices) == {"5", "6", "13", "14"}


async def test_reload_lets_the_pools_claim_again(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    await has(kubelet, plugin=8, dpdk=4)
    (host.machine.root / "bus/pci/devices/0000:3b:00.0/numa_node").write_text("0\n")
    assert registered.current.pid
    os.kill(registered.current.pid, signal.SIGHUP)
    await registered.worker(is_registered, other_than=registered.workers[0])
    await has(kubelet, plugin=8, dpdk=4)
    assert set(kubelet.plugins[DPDK].devices) == {"1", "2", "9", "10"}
    assert set(kubelet.plugins[RESOURCE].devices) == {"3", "5", "6", "7", "11", "13", "14", "15"}


async def test_reload_with_offline_cpus_keeps_the_worker(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    host.machine.set_offline(5, 6)
    await has(kubelet, plugin=8, dpdk=2)
    assert registered.current.pid
    os.kill(registered.current.pid, signal.SIGHUP)
    await until(lambda: "read the configuration again: nothing has changed" in host.log)
    assert (kubelet.registrations, len(registered.workers)) == (2, 1)
