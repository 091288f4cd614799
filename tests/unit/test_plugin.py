"""The plugin's answers to a kubelet, called directly, without a socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any, ClassVar, NoReturn

import grpc
import pytest

from isolcpus_dp import pool
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.config import Config, DeviceNodes, PoolConfig
from isolcpus_dp.host import machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.kubelet.plugin import DevicePlugin
from isolcpus_dp.pool import Pool
from isolcpus_dp.simulator.machine import MadeUpMachine

from .conftest import MakeUp, without_smt

INVALID = grpc.StatusCode.INVALID_ARGUMENT


class Aborted(Exception):
    """The call was ended with a status."""

    def __init__(self, code: grpc.StatusCode, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence


class FakeContext:
    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Aborted(code, details)


CONTEXT: Any = FakeContext()


class Host:
    """A simulated host and its plugin; `look_again` does what the daemon does on a uevent."""

    def __init__(self, tree: MadeUpMachine, config: PoolConfig) -> None:
        self.tree = tree
        self._config = config
        found = machine.read(tree.root)
        device_nodes = partial(machine.cpuid_device_nodes, tree.root)
        self.plugin = DevicePlugin(found, self._pool(found), device_nodes)

    def look_again(self) -> None:
        found = machine.read(self.tree.root, self.plugin.machine)
        self.plugin.publish(found, self._pool(found))

    def _pool(self, found: Machine) -> Pool:
        [made] = pool.make(found, Config(pools=(self._config,)))
        return made

    async def allocate(self, *containers: list[str]) -> api.AllocateResponse:
        return await self.plugin.Allocate(
            api.AllocateRequest(
                container_requests=[
                    api.ContainerAllocateRequest(devices_ids=ids) for ids in containers
                ]
            ),
            CONTEXT,
        )

    async def prefer(self, available: Iterable[str], must: Iterable[str], size: int) -> list[str]:
        answer = await self.plugin.GetPreferredAllocation(
            api.PreferredAllocationRequest(container_requests=[preference(available, must, size)]),
            CONTEXT,
        )
        [container] = answer.container_responses
        return list(container.deviceIDs)


def preference(
    available: Iterable[str], must: Iterable[str], size: int
) -> api.ContainerPreferredAllocationRequest:
    return api.ContainerPreferredAllocationRequest(
        available_deviceIDs=available, must_include_deviceIDs=must, allocation_size=size
    )


@pytest.fixture
async def host(make_up: MakeUp) -> Host:
    """CPUs 1 and 5 are a core on NUMA node 0, CPUs 2 and 6 a core on node 1."""
    return Host(make_up("2x2x2", {1, 2, 5, 6}), PoolConfig())


def with_nodes(make_up: MakeUp, choice: DeviceNodes, made_by_kernel: list[int]) -> Host:
    tree = make_up("2x2x2", {1, 2, 5, 6})
    for cpu in made_by_kernel:
        (tree.root / f"devices/virtual/cpuid/cpu{cpu}").mkdir(parents=True)
    return Host(tree, PoolConfig(device_nodes=choice))


def nodes_of(answer: api.AllocateResponse) -> list[tuple[str, str, str]]:
    return [
        (node.host_path, node.container_path, node.permissions)
        for container in answer.container_responses
        for node in container.devices
    ]


async def test_options_enable_the_preferred_allocation(host: Host) -> None:
    options = await host.plugin.GetDevicePluginOptions(api.Empty(), CONTEXT)
    assert options == api.DevicePluginOptions(
        pre_start_required=False, get_preferred_allocation_available=True
    )


async def test_pre_start_container_does_nothing(host: Host) -> None:
    request = api.PreStartContainerRequest(devices_ids=["1"])
    answer = await host.plugin.PreStartContainer(request, CONTEXT)
    assert answer == api.PreStartContainerResponse()


# Allocate: the container's CPUs


async def test_container_gets_its_cpus_as_environment_and_annotation(host: Host) -> None:
    assert await host.allocate(["6", "1", "5"]) == api.AllocateResponse(
        container_responses=[
            api.ContainerAllocateResponse(
                envs={"ISOLCPUS": "1,5-6"}, annotations={"windriver.com/isolcpus": "1,5-6"}
            )
        ]
    )


async def test_environment_and_annotation_have_the_resource_name(make_up: MakeUp) -> None:
    config = PoolConfig(resource_name="example.com/isolcpus-dpdk")
    host = Host(make_up("1x2x1", {1}), config)
    [container] = (await host.allocate(["1"])).container_responses
    assert dict(container.envs) == {"ISOLCPUS_DPDK": "1"}
    assert dict(container.annotations) == {"example.com/isolcpus-dpdk": "1"}


async def test_each_container_of_a_request_gets_its_own_cpus(host: Host) -> None:
    answer = await host.allocate(["1", "5"], ["2"])
    assert [dict(one.envs) for one in answer.container_responses] == [
        {"ISOLCPUS": "1,5"},
        {"ISOLCPUS": "2"},
    ]


async def test_request_without_containers_has_an_empty_answer(host: Host) -> None:
    assert await host.allocate() == api.AllocateResponse()


async def test_no_device_nodes_are_added_by_default(make_up: MakeUp) -> None:
    tree = make_up("2x2x2", {1, 2, 5, 6})
    (tree.root / "devices/virtual/cpuid/cpu1").mkdir(parents=True)
    assert nodes_of(await Host(tree, PoolConfig()).allocate(["1"])) == []


async def test_device_nodes_auto_are_the_existing_ones(make_up: MakeUp) -> None:
    host = with_nodes(make_up, "auto", [1, 2, 6])
    assert nodes_of(await host.allocate(["6", "5", "1"])) == [
        ("/dev/cpu/1/cpuid", "/dev/cpu/1/cpuid", "r"),
        ("/dev/cpu/6/cpuid", "/dev/cpu/6/cpuid", "r"),
    ]


async def test_device_nodes_auto_without_cpuid_module_are_none(make_up: MakeUp) -> None:
    host = with_nodes(make_up, "auto", [])
    assert nodes_of(await host.allocate(["1", "5"])) == []


async def test_device_nodes_yes_are_all_even_if_absent(make_up: MakeUp) -> None:
    host = with_nodes(make_up, "yes", [])
    assert nodes_of(await host.allocate(["5", "1"])) == [
        ("/dev/cpu/1/cpuid", "/dev/cpu/1/cpuid", "r"),
        ("/dev/cpu/5/cpuid", "/dev/cpu/5/cpuid", "r"),
    ]


async def test_device_nodes_no_are_none_even_if_they_exist(make_up: MakeUp) -> None:
    host = with_nodes(make_up, "no", [1, 5])
    assert nodes_of(await host.allocate(["1", "5"])) == []


async def test_allocation_is_logged_with_fields(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await host.allocate(["1", "5", "6"])
    [record] = caplog.records
    assert record.getMessage() == "allocated CPU 1,5-6 of windriver.com/isolcpus"
    assert record.__dict__["EVENT"] == "allocated"
    assert record.__dict__["RESOURCE"] == "windriver.com/isolcpus"
    assert record.__dict__["CPU"] == "1,5-6"


# Allocate: refusals


@pytest.mark.parametrize(
    ("containers", "sentence"),
    [
        ([["0"]], "windriver.com/isolcpus has no device 0"),
        ([["1", "99"]], "windriver.com/isolcpus has no device 99"),
        ([["x", "1", "-1"]], "windriver.com/isolcpus has no device x, -1"),
        ([["01"]], "windriver.com/isolcpus has no device 01"),
        ([["1", "5"], ["3"]], "windriver.com/isolcpus has no device 3"),
        ([["1", "5", "1"]], "device 1 is requested twice"),
        ([["1", "5"], ["2", "5"]], "device 5 is requested twice"),
        ([["9", "9"]], "device 9 is requested twice"),
        ([[]], "a container requests no device"),
        ([["1"], []], "a container requests no device"),
    ],
)
async def test_invalid_allocation_is_refused(
    host: Host, containers: list[list[str]], sentence: str
) -> None:
    with pytest.raises(Aborted) as caught:
        await host.allocate(*containers)
    assert (caught.value.code, caught.value.sentence) == (INVALID, sentence)


async def test_offline_cpu_is_refused(host: Host) -> None:
    host.tree.set_offline(6)
    host.look_again()
    with pytest.raises(Aborted) as caught:
        await host.allocate(["2", "6"])
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.sentence == "CPU 6 is offline"


async def test_cpu_brought_back_is_allocated_again(host: Host) -> None:
    host.tree.set_offline(6)
    host.look_again()
    host.tree.set_online(6)
    host.look_again()
    [container] = (await host.allocate(["2", "6"])).container_responses
    assert dict(container.envs) == {"ISOLCPUS": "2,6"}


async def test_refusal_grants_nothing_and_is_logged(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(Aborted):
        await host.allocate(["1", "5"], ["2", "3"])
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage() == "Allocate refused: windriver.com/isolcpus has no device 3"
    assert record.__dict__["EVENT"] == "allocation_refused"


# GetPreferredAllocation


async def test_preference_is_a_whole_core(host: Host) -> None:
    assert await host.prefer(["1", "2", "6"], [], 2) == ["2", "6"]


async def test_preference_completes_the_core_that_must_be_included(host: Host) -> None:
    assert await host.prefer(["6", "5", "2", "1"], ["5"], 2) == ["1", "5"]


async def test_preference_is_sorted_by_cpu_number(make_up: MakeUp) -> None:
    host = Host(make_up("1x12x1", {2, 9, 10, 11}), PoolConfig())
    assert await host.prefer(["11", "10", "9", "2"], [], 4) == ["2", "9", "10", "11"]


async def test_each_container_of_a_request_has_its_own_preference(host: Host) -> None:
    answer = await host.plugin.GetPreferredAllocation(
        api.PreferredAllocationRequest(
            container_requests=[
                preference(["1", "5", "2"], [], 2),
                preference(["2", "6", "1"], [], 2),
            ]
        ),
        CONTEXT,
    )
    assert [list(one.deviceIDs) for one in answer.container_responses] == [["1", "5"], ["2", "6"]]


@pytest.mark.parametrize(
    ("available", "must", "size", "sentence"),
    [
        (["1", "99"], ["99"], 1, "windriver.com/isolcpus has no device 99"),
        (["1", "2"], ["0"], 1, "windriver.com/isolcpus has no device 0"),
        (["1", "1", "2"], [], 1, "device 1 is requested twice"),
        (["1", "2"], ["2", "2"], 2, "device 2 is requested twice"),
        (["1", "2"], ["2", "6"], 2, "device 6 must be included but is not available"),
        (
            ["1", "2"],
            [],
            3,
            "3 devices requested, of 2 available with 0 that must be included",
        ),
        (
            ["1", "2"],
            ["1", "2"],
            1,
            "1 devices requested, of 2 available with 2 that must be included",
        ),
        (["1"], [], 0, "0 devices requested, of 1 available with 0 that must be included"),
        (["1"], [], -1, "-1 devices requested, of 1 available with 0 that must be included"),
        ([], [], 1, "1 devices requested, of 0 available with 0 that must be included"),
    ],
)
async def test_invalid_preference_request_is_refused(
    host: Host, available: list[str], must: list[str], size: int, sentence: str
) -> None:
    with pytest.raises(Aborted) as caught:
        await host.prefer(available, must, size)
    assert (caught.value.code, caught.value.sentence) == (INVALID, sentence)


async def test_preference_skips_offline_and_unknown_devices(host: Host) -> None:
    host.tree.set_offline(2)
    host.look_again()
    # The kubelet's list is older: alone 2 and 6 would be the best choice.
    assert await host.prefer(["1", "2", "6", "99"], ["6"], 2) == ["1", "6"]
    assert await host.prefer(["2", "5", "99", "x"], [], 1) == ["5"]


async def test_preference_is_shorter_if_too_few_devices_are_usable(host: Host) -> None:
    host.tree.set_offline(2)
    host.look_again()
    # The kubelet adds any others, and Allocate says why they cannot be used.
    assert await host.prefer(["2", "5", "1"], [], 3) == ["1", "5"]
    assert await host.prefer(["2", "99"], [], 1) == []


async def test_preference_is_refused_if_an_offline_device_is_required(host: Host) -> None:
    host.tree.set_offline(2)
    host.look_again()
    with pytest.raises(Aborted) as caught:
        await host.prefer(["1", "2", "6"], ["2"], 2)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.sentence == "CPU 2 is offline"


async def test_core_that_cannot_be_allocated_is_refused_with_reason(make_up: MakeUp) -> None:
    host = Host(make_up("2x2x2", {1, 2, 5, 6}), PoolConfig(granularity="core"))
    host.tree.set_offline(5)
    host.look_again()
    with pytest.raises(Aborted) as caught:
        await host.allocate(["1", "2"])
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.sentence == "CPU 5 is offline"
    assert await host.prefer(["1", "2"], [], 1) == ["2"]


async def test_one_invalid_container_refuses_the_whole_request(host: Host) -> None:
    with pytest.raises(Aborted) as caught:
        await host.plugin.GetPreferredAllocation(
            api.PreferredAllocationRequest(
                container_requests=[preference(["1", "5"], [], 2), preference(["3"], ["3"], 1)]
            ),
            CONTEXT,
        )
    assert caught.value.sentence == "windriver.com/isolcpus has no device 3"


# ListAndWatch


class Watcher:
    """A kubelet's end of a ListAndWatch stream."""

    watching: ClassVar[list[Watcher]] = []

    def __init__(self, plugin: DevicePlugin) -> None:
        self.watching.append(self)
        self._stream: AsyncIterator[api.ListAndWatchResponse] = plugin.ListAndWatch(
            api.Empty(), CONTEXT
        )
        self._next: asyncio.Task[api.ListAndWatchResponse] | None = None

    async def message(self) -> list[tuple[str, str, list[int]]] | None:
        """Id, health and NUMA nodes of the devices in the next message; None if there is none."""
        self._next = self._next or asyncio.ensure_future(self._take())
        for _ in range(20):  # more iterations of the event loop than a message needs; no clock
            await asyncio.sleep(0)
        if not self._next.done():
            return None
        answer, self._next = self._next.result(), None
        return [
            (device.ID, device.health, [node.ID for node in device.topology.nodes])
            for device in answer.devices
        ]

    async def leave(self) -> None:
        """Cancels the call, as gRPC does when the kubelet has gone away."""
        self._next = self._next or asyncio.ensure_future(self._take())
        await asyncio.sleep(0)
        self._next.cancel()
        await asyncio.wait([self._next])

    async def _take(self) -> api.ListAndWatchResponse:
        return await self._stream.__anext__()


@pytest.fixture(autouse=True)
async def watchers_leave() -> AsyncIterator[None]:
    """A call that is still pending at the end of a test would be logged in a later one."""
    yield
    while Watcher.watching:
        await Watcher.watching.pop().leave()


ALL_HEALTHY = [
    ("1", "Healthy", [0]),
    ("2", "Healthy", [1]),
    ("5", "Healthy", [0]),
    ("6", "Healthy", [1]),
]
CPU_6_OFFLINE = [*ALL_HEALTHY[:3], ("6", "Unhealthy", [1])]


async def test_stream_starts_with_all_devices(host: Host) -> None:
    assert await Watcher(host.plugin).message() == ALL_HEALTHY


async def test_stream_is_silent_while_nothing_changes(host: Host) -> None:
    watcher = Watcher(host.plugin)
    await watcher.message()
    assert await watcher.message() is None


async def test_cpu_taken_offline_is_one_new_message(host: Host) -> None:
    watcher = Watcher(host.plugin)
    await watcher.message()
    assert await watcher.message() is None
    host.tree.set_offline(6)
    host.look_again()
    assert await watcher.message() == CPU_6_OFFLINE
    assert await watcher.message() is None
    host.tree.set_online(6)
    host.look_again()
    assert await watcher.message() == ALL_HEALTHY


async def test_change_without_effect_on_devices_sends_no_message(host: Host) -> None:
    watcher = Watcher(host.plugin)
    await watcher.message()
    assert await watcher.message() is None
    host.tree.set_offline(3)
    host.look_again()
    assert await watcher.message() is None


async def test_other_reason_alone_sends_no_message(make_up: MakeUp) -> None:
    host = Host(make_up("2x2x2", {1, 2, 5, 6}), PoolConfig(granularity="core"))
    host.tree.set_offline(5)
    host.look_again()
    watcher = Watcher(host.plugin)
    assert await watcher.message() == [("1", "Unhealthy", [0]), ("2", "Healthy", [1])]
    assert await watcher.message() is None
    host.tree.set_offline(1)
    host.look_again()
    assert host.plugin.pool.devices["1"].reason == "CPU 1,5 is offline"
    assert await watcher.message() is None


async def test_cpu_that_appears_later_is_added_to_the_list(make_up: MakeUp) -> None:
    host = Host(without_smt(make_up("2x2x2", {1, 2, 5, 6})), PoolConfig())
    watcher = Watcher(host.plugin)
    assert await watcher.message() == [("1", "Healthy", [0]), ("2", "Healthy", [1])]
    assert await watcher.message() is None
    (host.tree.directory / "smt/control").write_text("on\n")
    host.tree.set_online(4, 5, 6, 7)
    host.look_again()
    assert await watcher.message() == ALL_HEALTHY


async def test_several_changes_between_reads_are_one_message(host: Host) -> None:
    watcher = Watcher(host.plugin)
    await watcher.message()
    host.tree.set_offline(2)
    host.look_again()
    host.tree.set_online(2)
    host.tree.set_offline(6)
    host.look_again()
    assert await watcher.message() == CPU_6_OFFLINE
    assert await watcher.message() is None


async def test_every_stream_gets_a_change(host: Host) -> None:
    watchers = [Watcher(host.plugin), Watcher(host.plugin)]
    assert [await watcher.message() for watcher in watchers] == [ALL_HEALTHY, ALL_HEALTHY]
    assert [await watcher.message() for watcher in watchers] == [None, None]
    host.tree.set_offline(6)
    host.look_again()
    assert [await watcher.message() for watcher in watchers] == [CPU_6_OFFLINE, CPU_6_OFFLINE]


async def test_host_without_isolated_cpus_sends_an_empty_list(make_up: MakeUp) -> None:
    watcher = Watcher(Host(make_up("1x2x1", set()), PoolConfig()).plugin)
    assert await watcher.message() == []
    assert await watcher.message() is None


async def test_device_of_a_host_without_numa_has_no_topology(make_up: MakeUp) -> None:
    tree = make_up("1x2x1", {1})
    (tree.directory / "cpu1/node0").rmdir()
    plugin = Host(tree, PoolConfig()).plugin
    stream = plugin.ListAndWatch(api.Empty(), CONTEXT)
    answer = await stream.__anext__()
    assert answer == api.ListAndWatchResponse(devices=[api.Device(ID="1", health="Healthy")])
    assert not answer.devices[0].HasField("topology")


async def test_expected_stream_opens_and_ends(host: Host) -> None:
    expected = host.plugin.expect_kubelet()
    watcher = Watcher(host.plugin)
    assert not expected.opened.is_set()
    await watcher.message()
    # It is set when gRPC, which has sent the message, asks for the next one.
    assert not expected.opened.is_set()
    assert await watcher.message() is None
    assert (expected.opened.is_set(), expected.ended.is_set()) == (True, False)
    await watcher.leave()
    assert expected.ended.is_set()


async def test_expected_stream_may_end_before_it_has_devices(host: Host) -> None:
    expected = host.plugin.expect_kubelet()
    stream: Any = host.plugin.ListAndWatch(api.Empty(), CONTEXT)
    await stream.__anext__()
    assert (expected.opened.is_set(), expected.ended.is_set()) == (False, False)
    await stream.aclose()
    assert (expected.opened.is_set(), expected.ended.is_set()) == (True, True)


async def test_second_stream_is_not_the_expected_one(host: Host) -> None:
    expected = host.plugin.expect_kubelet()
    kubelet, other = Watcher(host.plugin), Watcher(host.plugin)
    await kubelet.message()
    await other.message()
    await other.leave()
    assert not expected.ended.is_set()
