"""CPUs that go offline and come back while containers are pinned."""

from __future__ import annotations

import asyncio

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import connected as connected_with
from tests.testbed.daemon import supervisor
from tests.testbed.host import Host
from tests.testbed.prelude import Pause
from tests.testbed.runtime import Runtime, cpus
from tests.testbed.wait import until

from .conftest import OWNER

# The process pauses before it connects to the runtime, while its event loop runs.
CONNECT_LATER = """
import asyncio
connect = asyncio.SelectorEventLoop.create_unix_connection
async def connect_later(self, *arguments, **more):
    await asyncio.to_thread(pause)
    return await connect(self, *arguments, **more)
asyncio.SelectorEventLoop.create_unix_connection = connect_later
"""


@pytest.fixture
def version(request: pytest.FixtureRequest, host: Host) -> str:
    """The host's cgroup version, by parameter."""
    if request.param == "v2":
        host.cgroup_file("cgroup.controllers", "cpuset cpu\n")
    return str(request.param)


@pytest.mark.parametrize(
    ("version", "meanwhile"),
    [("v1", "0-1,5"), ("v2", "0-1,4-5")],
    ids=["cgroup v1", "cgroup v2"],
    indirect=["version"],
)
async def test_cpusets_follow_cpus_that_go_offline_and_come_back(
    host: Host,
    version: str,
    meanwhile: str,
    runtime: Runtime,
    pod: api.PodSandbox,
    owner: api.Container,
    connected: Supervisor,
) -> None:
    """cgroup v1 rejects a cpuset with an offline CPU; with v2 the CPU returns automatically."""
    host.machine.set_offline(3, 4)
    await until(lambda: cpus(owner) == "2")
    await runtime.until_connected()
    assert cpus(await runtime.create(pod, "plain")) == meanwhile
    host.machine.set_online(3, 4)
    await until(lambda: cpus(owner) == "2-3")
    assert len(connected.runs) == 1


async def test_cpu_that_goes_offline_during_connect_is_not_used(
    host: Host, runtime: Runtime, pod: api.PodSandbox
) -> None:
    owner = await runtime.create(pod, "owner", OWNER)
    pause = Pause(host.directory)
    async with supervisor(host, "pin", prelude=pause.prelude + CONNECT_LATER).running():
        await pause.reached()
        host.machine.set_offline(3)
        await asyncio.sleep(0.3)
        pause.end()
        await until(lambda: cpus(owner) == "2")


async def test_cpu_missing_from_the_kubelets_cgroup_is_not_used(
    host: Host, runtime: Runtime, pod: api.PodSandbox
) -> None:
    """cgroup v1 never restores a CPU, and rejects a cpuset that the parent does not have."""
    kubepods = host.cgroup_file("cpuset/kubepods.slice/cpuset.cpus", "0-7\n")
    async with connected_with(supervisor(host, "pin"), runtime):
        owner = await runtime.create(pod, "owner", OWNER)
        assert cpus(owner) == "2-3"
        kubepods.write_text("0-2,5-7\n")
        host.machine.set_offline(3, 4)
        await until(lambda: cpus(owner) == "2")
        host.machine.set_online(3, 4)
        await asyncio.sleep(0.5)
        await runtime.until_connected()
        assert cpus(await runtime.create(pod, "plain")) == "0-1,5"
        assert cpus(await runtime.create(pod, "next", OWNER)) == "2"
        assert cpus(owner) == "2"
