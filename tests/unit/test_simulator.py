"""The simulator: its machines look like real ones, its kubelet allocates like a real one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.simulator import topology
from isolcpus_dp.simulator.devices import Checkpoint, Entry, Preference, by_node, choose
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, described, parse_shape, regular

from .conftest import MakeUp

FREE = frozenset({"2", "3", "34", "35"})


def text(made_up: MadeUpMachine, name: str) -> str:
    return (made_up.directory / name).read_text()


def answering(ids: Iterable[str]) -> Preference:
    async def prefer(free: frozenset[str], must: frozenset[str], size: int) -> Iterable[str]:
        return ids

    return prefer


# Machines


def test_first_threads_are_numbered_first() -> None:
    assert regular(2, 1, 2) == (
        Place(cpu=0, core=0, package=0, cache=0, node=0),
        Place(cpu=1, core=0, package=1, cache=1, node=1),
        Place(cpu=2, core=0, package=0, cache=0, node=0),
        Place(cpu=3, core=0, package=1, cache=1, node=1),
    )


def test_cpu_34_is_the_sibling_of_2_on_two_packages_of_16_cores() -> None:
    places = {place.cpu: place for place in regular(2, 16, 2)}
    assert len(places) == 64
    assert places[34] == Place(cpu=34, core=2, package=0, cache=0, node=0)
    assert places[2] == Place(cpu=2, core=2, package=0, cache=0, node=0)


def test_shape_is_packages_cores_threads() -> None:
    assert parse_shape("1x2x1") == (
        Place(cpu=0, core=0, package=0, cache=0, node=0),
        Place(cpu=1, core=1, package=0, cache=0, node=0),
    )


@pytest.mark.parametrize(
    "shape", ["", "2x8", "2x8x2x2", "0x8x2", "2x0x2", "2x8x0", "-1x8x2", "axbxc", "2 x 8 x 2"]
)
def test_invalid_shape_is_an_error(shape: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is not a machine: ") as caught:
        parse_shape(shape)
    assert str(caught.value) == (
        f"'{shape}' is not a machine: use packages x cores x threads, such as 2x8x2"
    )


def test_shape_with_too_many_cpus_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^'64x65x2' has more than 8192 CPUs$"):
        parse_shape("64x65x2")


def test_machine_has_the_layout_of_sysfs(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 3, 6, 7})
    assert made_up.directory == made_up.root / "devices/system/cpu"
    assert text(made_up, "present") == "0-7\n"
    assert text(made_up, "possible") == "0-7\n"
    assert text(made_up, "online") == "0-7\n"
    assert text(made_up, "isolated") == "2-3,6-7\n"
    assert text(made_up, "cpu7/topology/core_cpus_list") == "3,7\n"
    assert text(made_up, "cpu7/topology/core_id") == "1\n"
    assert text(made_up, "cpu7/topology/physical_package_id") == "1\n"
    assert text(made_up, "cpu7/topology/die_id") == "0\n"
    assert text(made_up, "cpu7/cache/index0/shared_cpu_list") == "3,7\n"
    assert text(made_up, "cpu7/cache/index3/level") == "3\n"
    assert text(made_up, "cpu7/cache/index3/shared_cpu_list") == "2-3,6-7\n"
    assert (made_up.directory / "cpu7/node1").is_dir()


def test_described_machine_is_the_one_that_is_read(make_up: MakeUp) -> None:
    assert described(parse_shape("2x4x2"), {2, 10}) == machine.read(make_up("2x4x2", {2, 10}).root)


def test_machine_without_isolated_cpus(make_up: MakeUp) -> None:
    assert text(make_up("1x2x1", set()), "isolated") == "\n"


def test_offline_cpu_is_removed_from_all_topology(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {3, 7})
    made_up.set_offline(7)
    assert text(made_up, "online") == "0-6\n"
    assert text(made_up, "present") == "0-7\n"
    assert sorted(path.name for path in (made_up.directory / "cpu7").iterdir()) == ["node1"]
    assert text(made_up, "cpu3/topology/core_cpus_list") == "3\n"
    assert text(made_up, "cpu2/cache/index3/shared_cpu_list") == "2-3,6\n"
    assert text(made_up, "cpu0/cache/index3/shared_cpu_list") == "0-1,4-5\n"


def test_cpu_that_comes_online_has_its_topology_again(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {3, 7})
    made_up.set_offline(3, 7)
    made_up.set_online(7)
    assert text(made_up, "online") == "0-2,4-7\n"
    assert text(made_up, "cpu7/topology/core_cpus_list") == "7\n"
    made_up.set_online(3)
    assert text(made_up, "online") == "0-7\n"
    assert text(made_up, "cpu7/topology/core_cpus_list") == "3,7\n"
    assert text(made_up, "cpu2/cache/index3/shared_cpu_list") == "2-3,6-7\n"


# The kubelet's choice of devices


async def test_preference_of_the_plugin_is_used() -> None:
    assert await choose(FREE, 2, answering(["3", "35"])) == {"3", "35"}


async def test_plugin_may_choose_from_all_free_devices() -> None:
    asked: list[tuple[frozenset[str], frozenset[str], int]] = []

    async def prefer(free: frozenset[str], must: frozenset[str], size: int) -> Iterable[str]:
        asked.append((free, must, size))
        return ["2"]

    await choose(FREE, 1, prefer)
    assert asked == [(frozenset({"2", "3", "34", "35"}), frozenset(), 1)]


async def test_too_short_preference_is_completed() -> None:
    chosen = await choose(FREE, 3, answering(["34"]))
    assert len(chosen) == 3
    assert "34" in chosen
    assert chosen <= FREE


async def test_too_long_preference_is_cut() -> None:
    chosen = await choose(FREE, 2, answering(["2", "3", "34"]))
    assert len(chosen) == 2
    assert chosen <= {"2", "3", "34"}


async def test_preference_for_devices_not_free_is_ignored() -> None:
    assert await choose(frozenset({"2", "3"}), 2, answering(["7", "x", "3"])) == {"2", "3"}


async def test_preference_that_names_a_device_twice_counts_it_once() -> None:
    chosen = await choose(FREE, 2, answering(["34", "34"]))
    assert len(chosen) == 2
    assert "34" in chosen


async def test_without_preference_any_devices_are_chosen() -> None:
    chosen = await choose(FREE, 2, None)
    assert len(chosen) == 2
    assert chosen <= FREE


async def test_plugin_chooses_among_aligned_devices_if_enough() -> None:
    asked: list[tuple[frozenset[str], frozenset[str], int]] = []

    async def prefer(free: frozenset[str], must: frozenset[str], size: int) -> Iterable[str]:
        asked.append((free, must, size))
        return ["2", "35"]  # 2 is not aligned

    aligned = frozenset({"3", "34", "35"})
    chosen = await choose(FREE, 2, prefer, aligned)
    assert asked == [(aligned, frozenset(), 2)]
    assert "35" in chosen
    assert chosen <= aligned


async def test_plugin_adds_to_aligned_devices_if_too_few() -> None:
    asked: list[tuple[frozenset[str], frozenset[str], int]] = []

    async def prefer(free: frozenset[str], must: frozenset[str], size: int) -> Iterable[str]:
        asked.append((free, must, size))
        return ["3", "34", "35"]

    aligned = frozenset({"3", "35"})
    assert await choose(FREE, 3, prefer, aligned) == {"3", "34", "35"}
    assert asked == [(FREE, aligned, 3)]


async def test_plugin_is_not_asked_if_all_aligned_are_needed() -> None:
    async def prefer(free: frozenset[str], must: frozenset[str], size: int) -> Iterable[str]:
        raise AssertionError("nothing is left to prefer")

    aligned = frozenset({"3", "35"})
    assert await choose(FREE, 2, prefer, aligned) == aligned


# The kubelet's topology manager

ON_TWO_NODES = {"2": 0, "3": 0, "4": 1, "5": 1, "6": 1}


def test_policy_none_selects_no_node() -> None:
    assert topology.affinity("none", {"a/b": (ON_TWO_NODES, 1)}) is None


@pytest.mark.parametrize(("size", "node"), [(1, 0), (2, 0), (3, 1)])
def test_lowest_node_with_enough_devices_is_selected(size: int, node: int) -> None:
    assert topology.affinity("single-numa-node", {"a/b": (ON_TWO_NODES, size)}) == node


def test_one_node_must_have_all_resources() -> None:
    wishes = {"a/b": (ON_TWO_NODES, 2), "c/d": ({"7": 1}, 1)}
    assert topology.affinity("single-numa-node", wishes) == 1
    with pytest.raises(topology.TopologyAffinityError):
        topology.affinity("single-numa-node", {**wishes, "e/f": ({"8": 0}, 1)})


def test_device_without_a_node_fits_every_node() -> None:
    free = {"2": 0, "3": None, "4": None}
    assert topology.affinity("single-numa-node", {"a/b": (free, 3)}) == 0
    assert topology.affinity("single-numa-node", {"a/b": ({"3": None}, 1)}) is None
    assert topology.aligned(free, 0) == {"2"}
    assert topology.aligned(free, None) == frozenset()


def test_too_few_devices_on_every_node_is_an_error() -> None:
    with pytest.raises(topology.TopologyAffinityError):
        topology.affinity("single-numa-node", {"a/b": (ON_TWO_NODES, 4)})


# The kubelet's checkpoint


def test_absent_checkpoint_is_empty(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    assert checkpoint.held("example.com/rt") == set()
    assert dict(checkpoint.of_pod("pod")) == {}


def test_checkpoint_is_read_by_the_next_kubelet(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    first = Entry("example.com/rt", by_node({"2": 0, "34": 1}), b"\x00answer")
    second = Entry("example.com/rt", by_node({"3": 0}), b"")
    other = Entry("example.com/other", by_node({"7": None}), b"")
    checkpoint = Checkpoint(path)
    checkpoint.allocate("one", first)
    checkpoint.allocate("two", second)
    checkpoint.allocate("two", other)
    again = Checkpoint(path)
    assert dict(again.of_pod("one")) == {"example.com/rt": first}
    assert dict(again.of_pod("two")) == {"example.com/rt": second, "example.com/other": other}
    assert again.held("example.com/rt") == {"2", "3", "34"}
    assert again.held("example.com/other") == {"7"}


def test_pod_that_ends_releases_its_devices(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    checkpoint.allocate("one", Entry("example.com/rt", by_node({"2": 0}), b""))
    checkpoint.allocate("two", Entry("example.com/rt", by_node({"3": 0}), b""))
    checkpoint.release("one")
    checkpoint.release("never there")
    assert Checkpoint(path).held("example.com/rt") == {"3"}


def test_checkpoint_has_the_kubelets_format(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    checkpoint = Checkpoint(path)
    checkpoint.register("example.com/rt", frozenset({"2", "34", "7"}))
    assert json.loads(path.read_text())["Data"]["PodDeviceEntries"] is None
    nodes = {"2": 0, "34": 1, "7": None}
    checkpoint.allocate("uid", Entry("example.com/rt", by_node(nodes), b"answer", "app"))
    assert json.loads(path.read_text()) == {
        "Data": {
            "PodDeviceEntries": [
                {
                    "PodUID": "uid",
                    "ContainerName": "app",
                    "ResourceName": "example.com/rt",
                    "DeviceIDs": {"0": ["2"], "1": ["34"], "-1": ["7"]},
                    "AllocResp": "YW5zd2Vy",
                }
            ],
            "RegisteredDevices": {"example.com/rt": ["2", "34", "7"]},
        },
        "Checksum": 0,
    }


def test_checkpoint_of_a_kubelet_without_pods_is_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    path.write_text('{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":1}')
    checkpoint = Checkpoint(path)
    assert checkpoint.registered == {}
    assert checkpoint.held("example.com/rt") == set()


def test_checkpoint_keeps_a_resource_without_its_devices(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    Checkpoint(path).register("example.com/rt", frozenset({"2"}))
    assert Checkpoint(path).registered == {"example.com/rt": frozenset()}
