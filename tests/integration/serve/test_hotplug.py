"""CPUs that go offline and come back while the device plugin serves, or just before."""

from __future__ import annotations

import asyncio
import os
import signal

import grpc
import pytest

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, registered, supervisor
from tests.testbed.host import RESOURCE, Host
from tests.testbed.prelude import Pause
from tests.testbed.wait import until

from .conftest import next_message

# The process pauses once, after reading the machine.
PAUSE_AFTER_READING = """
from isolcpus_dp.host import machine
read = machine.read
def read_and_pause(*arguments):
    found = read(*arguments)
    machine.read = read
    pause()
    return found
machine.read = read_and_pause
"""


async def test_offline_cpu_becomes_unhealthy_in_one_message(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{host.endpoint}") as channel:
        stream = rpc.DevicePluginStub(channel).ListAndWatch(api.Empty())
        await next_message(stream)
        host.machine.set_offline(9)
        message = await next_message(stream)
        health = {device.ID: device.health for device in message.devices}
        assert health == {"1": "Healthy", "5": "Healthy", "9": "Unhealthy", "13": "Healthy"}
        # A housekeeping CPU, and the same state again: no message to the kubelet.
        host.machine.set_offline(0)
        host.machine.set_offline(9)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stream.read(), 0.5)
    await has_devices(kubelet, 3)
    assert registered.current.status == f"Registered {RESOURCE}: 4 devices, 1 unhealthy"
    assert "CPU 9 is offline; reported to the kubelet" in host.log
    host.machine.set_online(9)
    await has_devices(kubelet, 4)


async def test_cpu_that_goes_offline_during_the_start_is_unhealthy(
    host: Host, kubelet: Kubelet
) -> None:
    pause = Pause(host.directory)
    async with supervisor(host, "serve", prelude=pause.prelude + PAUSE_AFTER_READING).running():
        await pause.reached()
        host.machine.set_offline(9)  # before the daemon watches for changes
        pause.end()
        await has_devices(kubelet, 3)


async def test_second_threads_are_offered_when_smt_is_switched_on(
    host: Host, start_kubelet: StartKubelet
) -> None:
    control = host.machine.directory / "smt/control"
    control.parent.mkdir()
    control.write_text("off\n")
    host.machine.set_offline(*range(8, 16))
    async with registered(supervisor(host, "serve"), await start_kubelet()) as daemon:
        assert daemon.current.status == f"Registered {RESOURCE}: 2 devices, 0 unhealthy"
        assert "CPU 9,13 is offline because SMT is off, and is not offered until" in host.log
        control.write_text("on\n")
        host.machine.set_online(*range(8, 16))
        await daemon.worker(lambda worker: "4 devices, 0 unhealthy" in worker.status)
    assert "CPU 13 is online; reported to the kubelet" in host.log


async def test_added_cpu_is_still_offered_after_a_reload_and_to_the_next_kubelet(
    host: Host, kubelet: Kubelet
) -> None:
    def present(cpus: str) -> None:
        for name in ("possible", "present", "online"):  # the last one is watched
            (host.machine.directory / name).write_text(f"{cpus}\n")

    present("0-12")
    async with registered(supervisor(host, "serve"), kubelet) as daemon:
        await has_devices(kubelet, 3)
        present("0-15")
        await has_devices(kubelet, 4)
        assert daemon.current.pid
        os.kill(daemon.current.pid, signal.SIGHUP)
        await until(lambda: "read the configuration again: nothing has changed" in host.log)
        await kubelet.stop()
        await kubelet.start()
        await has_devices(kubelet, 4)
