"""Containers that the pinning daemon finds when it connects, running or just being started."""

from __future__ import annotations

import asyncio
import os

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import connected as connected_with
from tests.testbed.daemon import supervisor
from tests.testbed.host import Host
from tests.testbed.runtime import Runtime, cpus, quota
from tests.testbed.wait import until

from .conftest import OWNER, StartRuntime


async def test_existing_containers_are_updated_when_the_daemon_starts(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime(chunk=3)
    pod = runtime.run_pod("before")
    plain = [await runtime.create(pod, f"plain-{number}") for number in range(10)]
    owner = await runtime.create(pod, "owner", OWNER)
    wide = await runtime.create(pod, "wide", cpus="0-7")
    ended = await runtime.create(pod, "ended")
    ended.state = api.CONTAINER_STOPPED
    async with connected_with(supervisor(host, "pin"), runtime):
        assert [cpus(one) for one in plain] == ["0-1,4-5"] * 10
        assert (cpus(owner), cpus(wide), cpus(ended)) == ("2-3", "0-1,4-5", "")
        assert "simulated 1 listed 13 containers: updating 12" in host.log


async def test_container_that_starts_during_synchronize_is_updated(
    runtime: Runtime,
    starting_owner: api.Container,
    starting_other: api.Container,
    connected: Supervisor,
) -> None:
    assert runtime.outdated == {starting_owner.id, starting_other.id}
    for container in (starting_owner, starting_other):
        await runtime.start_container(container)
    await until(lambda: not runtime.outdated)
    assert (cpus(starting_owner), cpus(starting_other)) == ("2-3", "0-1,4-5")


async def test_failed_update_is_retried_at_the_next_connection(
    host: Host, runtime: Runtime, pod: api.PodSandbox, starting_other: api.Container
) -> None:
    other = starting_other
    limited = api.OptionalInt64(value=10_000)
    owner = await runtime.create(pod, "owner", OWNER, starts=False, quota=limited)
    runtime.unchangeable = {owner.id, other.id}
    async with connected_with(supervisor(host, "pin"), runtime):
        for container in (owner, other):
            await runtime.start_container(container)
        await until(lambda: host.log.count("could not update") == 2)
        recorded = (cpus(owner), quota(owner), cpus(other))
        assert recorded == ("2-3", -1, "0-1,4-5")

        runtime.unchangeable.clear()
        host.machine.set_offline(4)  # the daemon reconnects; cgroup v1 rejects an offline CPU
        await until(lambda: not runtime.outdated)
        assert (cpus(owner), quota(owner)) == ("2-3", -1)
        assert host.log.count("2 containers: updating 2") == 2
        # The update succeeded: only what CPU 4 changes is left to do.
        host.machine.set_online(4)
        await until(lambda: "2 containers: updating 1" in host.log)
        await until(lambda: cpus(other) == "0-1,4-5")


async def test_retried_update_names_no_offline_cpu_on_cgroup_v1(
    host: Host, runtime: Runtime, starting_other: api.Container, connected: Supervisor
) -> None:
    assert cpus(starting_other) == "0-1,4-5"
    host.machine.set_offline(4)
    await until(lambda: runtime.synchronized == 2 and runtime.connected)
    await runtime.start_container(starting_other)
    await until(lambda: not runtime.outdated)
    assert cpus(starting_other) == "0-1,5"


async def test_starting_container_is_updated_after_a_daemon_crash(
    runtime: Runtime, starting_other: api.Container, connected: Supervisor
) -> None:
    """The new daemon sees no difference: the runtime reports what the old one set."""
    assert runtime.outdated == {starting_other.id}
    os.kill(connected.workers[0].pid, 9)
    await until(lambda: runtime.synchronized == 2 and runtime.connected)
    await runtime.start_container(starting_other)
    await until(lambda: not runtime.outdated)


async def test_restarted_daemon_updates_containers_it_missed(
    runtime: Runtime, connected: Supervisor
) -> None:
    os.kill(connected.workers[0].pid, 9)
    await until(lambda: not runtime.connected)
    missed = await runtime.create(runtime.run_pod("missed"))
    assert cpus(missed) == ""
    await runtime.until_connected()
    await until(lambda: cpus(missed) == "0-1,4-5")


async def test_container_missing_from_synchronize_is_updated_at_start(
    host: Host, runtime: Runtime, starting_owner: api.Container, starting_other: api.Container
) -> None:
    starting = {container.id: container for container in (starting_owner, starting_other)}
    runtime.containers.clear()
    async with connected_with(supervisor(host, "pin"), runtime):
        assert "simulated 1 listed 0 containers" in host.log
        runtime.containers.update(starting)
        for container in starting.values():
            await runtime.start_container(container)
        await until(lambda: (cpus(starting_owner), cpus(starting_other)) == ("2-3", "0-1,4-5"))


async def test_others_get_their_cpus_back_from_a_restarted_daemon(
    host: Host, runtime: Runtime, pod: api.PodSandbox
) -> None:
    async with connected_with(supervisor(host, "pin"), runtime):
        others = [await runtime.create(pod, "plain"), await runtime.create(pod, "wide", cpus="1-4")]
        owner = await runtime.create(pod, "owner", OWNER)
        assert [cpus(one) for one in (*others, owner)] == ["0-1,4-5", "1,4", "2-3"]
    await until(lambda: not runtime.connected)
    async with connected_with(supervisor(host, "pin", "[Pinning]\nKeepOthersOff=no\n"), runtime):
        assert [cpus(one) for one in (*others, owner)] == ["0-7", "1-4", "2-3"]


class GarblingRuntime(Runtime):
    """Its responses to UpdateContainers are malformed."""

    def answer(self, service: str, method: str, payload: bytes) -> bytes:
        return b"\xff" if method == "UpdateContainers" else super().answer(service, method, payload)


async def test_malformed_update_response_keeps_the_connection(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime(kind=GarblingRuntime)
    plain = await runtime.create(runtime.run_pod("starting"), "plain", starts=False)
    async with connected_with(supervisor(host, "pin"), runtime):
        await runtime.start_container(plain)
        await until(
            lambda: "could not update container plain of pod default/starting: " in host.log
        )
        await asyncio.sleep(0.3)  # a lost connection is reopened after 0.1 s
        assert len(runtime.registered) == 1


async def test_failed_update_is_logged_and_keeps_the_connection(
    host: Host, runtime: Runtime, starting_other: api.Container, connected: Supervisor
) -> None:
    runtime.unchangeable.add(starting_other.id)
    await runtime.start_container(starting_other)
    message = "could not update container other of pod default/a: NRI update of some"
    await until(lambda: message in host.log)
    await asyncio.sleep(0.3)  # a lost connection is reopened after 0.1 s
    assert runtime.outdated == {starting_other.id}
    assert (len(runtime.registered), len(connected.runs)) == (1, 1)
