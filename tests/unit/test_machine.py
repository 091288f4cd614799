"""The Machine that is read from sysfs, on ordinary and unusual hosts."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp.host.machine import Cpu, MachineError, cpuid_device_nodes, is_current, read
from isolcpus_dp.simulator.machine import MadeUpMachine, regular

from .conftest import MakeUp


def write(made_up: MadeUpMachine, name: str, text: str) -> Path:
    path = made_up.directory / name
    path.write_text(text)
    return path


def remove_from_each_cpu(made_up: MadeUpMachine, pattern: str) -> None:
    found = list(made_up.directory.glob(f"cpu[0-9]*/{pattern}"))
    assert found
    for path in found:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_ordinary_host_is_read(make_up: MakeUp) -> None:
    machine = read(make_up("2x2x2", {2, 3, 6, 7}).root)
    assert machine.possible == machine.present == machine.online == {0, 1, 2, 3, 4, 5, 6, 7}
    assert machine.isolated == {2, 3, 6, 7}
    assert machine.last == 7
    assert sorted(machine.cpus) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert machine.cpus[3] == Cpu(
        cpu=3,
        online=True,
        core=1,
        siblings=frozenset({3, 7}),
        package=1,
        die=0,
        cache=frozenset({2, 3, 6, 7}),
        node=1,
    )


def test_host_without_numa_has_no_nodes(make_up: MakeUp) -> None:
    made_up = make_up("1x2x2", {1, 3})
    remove_from_each_cpu(made_up, "node*")
    machine = read(made_up.root)
    assert [machine.cpus[cpu].node for cpu in (0, 1, 2, 3)] == [None, None, None, None]
    assert machine.cpus[1].siblings == {1, 3}


def test_node_is_read_from_a_link_as_on_a_real_host(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    remove_from_each_cpu(made_up, "node*")
    (made_up.root / "devices/system/node/node5").mkdir(parents=True)
    (made_up.directory / "cpu1/node5").symlink_to("../../node/node5")
    machine = read(made_up.root)
    assert (machine.cpus[0].node, machine.cpus[1].node) == (None, 5)


def test_numa_ids_may_be_sparse(tmp_path: Path) -> None:
    places = [replace(place, node=8 * place.package) for place in regular(2, 2, 1)]
    machine = read(MadeUpMachine(tmp_path, places, {1, 3}).root)
    assert [machine.cpus[cpu].node for cpu in (0, 1, 2, 3)] == [0, 0, 8, 8]


def test_host_without_caches_has_one_per_cpu(make_up: MakeUp) -> None:
    made_up = make_up("1x2x2", {1, 3})
    remove_from_each_cpu(made_up, "cache")
    machine = read(made_up.root)
    assert [machine.cpus[cpu].cache for cpu in (0, 1)] == [{0}, {1}]


def test_last_level_cache_has_the_highest_level(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {1})
    (made_up.directory / "cpu1/cache/index4").mkdir()
    write(made_up, "cpu1/cache/index4/level", "2\n")
    write(made_up, "cpu1/cache/index4/shared_cpu_list", "0-1\n")
    assert read(made_up.root).cpus[1].cache == {0, 1, 2, 3}


def test_offline_cpu_has_only_its_node(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 6})
    made_up.set_offline(6)
    machine = read(made_up.root)
    assert machine.present == {0, 1, 2, 3, 4, 5, 6, 7}
    assert machine.online == {0, 1, 2, 3, 4, 5, 7}
    assert machine.cpus[6] == Cpu(
        cpu=6,
        online=False,
        core=None,
        siblings=frozenset({6}),
        package=None,
        die=None,
        cache=frozenset({6}),
        node=1,
    )
    assert machine.cpus[2].siblings == {2}
    assert machine.cpus[2].cache == {2, 3, 7}


def test_change_during_the_reading_repeats_it(
    make_up: MakeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = make_up("2x2x2", set())
    before = read(made_up.root)
    changes = iter([made_up.set_offline])
    os_open = os.open

    def open_and_change(path: str | Path, *arguments: Any, **more: Any) -> int:
        # From Python 3.13 on, shutil opens Path objects.
        if str(path).endswith("/topology/core_id"):
            for change in changes:
                change(5)
        return os_open(path, *arguments, **more)

    monkeypatch.setattr(os, "open", open_and_change)
    after = read(made_up.root, before)
    assert after == read(made_up.root, before)
    assert after.online == {0, 1, 2, 3, 4, 6, 7}
    assert after.cpus[5] == replace(before.cpus[5], online=False)


def test_isolated_cpus_may_be_absent(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    write(made_up, "isolated", "2-3,12\n")
    machine = read(made_up.root)
    assert machine.isolated == {2, 3, 12}
    assert machine.present == {0, 1, 2, 3}
    assert sorted(machine.cpus) == [0, 1, 2, 3]


def test_present_cpus_may_have_gaps(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {3})
    write(made_up, "present", "0-1,3\n")
    write(made_up, "online", "0-1,3\n")
    shutil.rmtree(made_up.directory / "cpu2")
    assert sorted(read(made_up.root).cpus) == [0, 1, 3]


def test_cpu_that_is_not_present_is_not_online(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {3})
    write(made_up, "online", "0-2,9\n")
    machine = read(made_up.root)
    assert machine.online == {0, 1, 2}
    assert sorted(machine.cpus) == [0, 1, 2, 3]


def test_host_with_256_cpus_is_read(make_up: MakeUp) -> None:
    machine = read(make_up("2x64x2", {70, 198, 255}).root)
    assert len(machine.cpus) == 256
    assert machine.last == 255
    assert machine.isolated == {70, 198, 255}
    assert machine.cpus[198].siblings == {70, 198}
    assert machine.cpus[198].node == 1
    assert machine.cpus[255].siblings == {127, 255}
    assert machine.cpus[0].siblings == {0, 128}
    assert machine.cpus[0].cache == {*range(64), *range(128, 192)}


def test_last_cpu_is_the_highest_possible_one(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    write(made_up, "possible", "0-15\n")
    assert read(made_up.root).last == 15


@pytest.mark.parametrize("name", ["possible", "present", "online"])
def test_one_list_of_cpus_may_be_missing(make_up: MakeUp, name: str) -> None:
    made_up = make_up("1x4x1", {3})
    (made_up.directory / name).unlink()
    machine = read(made_up.root)
    assert machine.possible == machine.present == machine.online == {0, 1, 2, 3}


def test_kernel_without_isolated_file_has_none(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    (made_up.directory / "isolated").unlink()
    assert read(made_up.root).isolated == set()


def test_host_without_isolated_cpus(make_up: MakeUp) -> None:
    assert read(make_up("1x2x1", set()).root).isolated == set()


@pytest.mark.parametrize("name", ["physical_package_id", "die_id", "core_id"])
def test_minus_one_means_unknown(make_up: MakeUp, name: str) -> None:
    made_up = make_up("1x2x1", {1})
    write(made_up, f"cpu1/topology/{name}", "-1\n")
    cpu = read(made_up.root).cpus[1]
    found = {"physical_package_id": cpu.package, "die_id": cpu.die, "core_id": cpu.core}
    assert found[name] is None
    assert list(found.values()).count(None) == 1


def test_kernel_without_die_id_has_no_die(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    remove_from_each_cpu(made_up, "topology/die_id")
    assert read(made_up.root).cpus[1].die is None


def test_siblings_are_read_from_the_older_file(make_up: MakeUp) -> None:
    made_up = make_up("1x2x2", {1, 3})
    for path in made_up.directory.glob("cpu*/topology/core_cpus_list"):
        path.rename(path.with_name("thread_siblings_list"))
    machine = read(made_up.root)
    assert [machine.cpus[cpu].siblings for cpu in (0, 1)] == [{0, 2}, {1, 3}]


def test_host_without_topology_has_no_cores(make_up: MakeUp) -> None:
    made_up = make_up("1x2x2", {1, 3})
    remove_from_each_cpu(made_up, "topology")
    cpu = read(made_up.root).cpus[1]
    assert (cpu.core, cpu.package, cpu.online) == (None, None, True)
    assert cpu.siblings == {1}


def test_host_with_only_a_list_of_present_cpus(tmp_path: Path) -> None:
    directory = tmp_path / "devices/system/cpu"
    directory.mkdir(parents=True)
    (directory / "present").write_text("0-1\n")
    machine = read(tmp_path)
    assert machine.online == {0, 1}
    assert machine.cpus[1] == Cpu(
        cpu=1,
        online=True,
        core=None,
        siblings=frozenset({1}),
        package=None,
        die=None,
        cache=frozenset({1}),
        node=None,
    )


@pytest.mark.parametrize(
    "name",
    [
        "possible",
        "present",
        "online",
        "isolated",
        "cpu1/topology/core_cpus_list",
        "cpu1/cache/index3/shared_cpu_list",
    ],
)
def test_invalid_list_is_an_error_that_names_the_file(make_up: MakeUp, name: str) -> None:
    made_up = make_up("1x2x2", {1, 3})
    path = write(made_up, name, "0,1-x\n")
    with pytest.raises(MachineError) as caught:
        read(made_up.root)
    assert str(caught.value) == (
        f"{path} is not a CPU list: '1-x' is neither a CPU number nor a range such as 2-3"
    )


def test_binary_list_is_an_error_that_names_the_file(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    path = made_up.directory / "isolated"
    path.write_bytes(b"\x00\xff\xfe")
    with pytest.raises(MachineError, match="is not a CPU list") as caught:
        read(made_up.root)
    assert str(path) in str(caught.value)


def test_invalid_number_counts_as_unknown(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    write(made_up, "cpu1/topology/core_id", "zero\n")
    write(made_up, "cpu1/cache/index0/level", "\n")
    cpu = read(made_up.root).cpus[1]
    assert cpu.core is None
    assert cpu.cache == {0, 1}


def test_absent_sysfs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        read(tmp_path / "absent")
    assert str(caught.value) == (
        f"{tmp_path}/absent/devices/system/cpu/present names no CPU:"
        " --sysfs must be a directory laid out like /sys"
    )


def test_cpuid_device_nodes_are_those_in_sysfs(tmp_path: Path) -> None:
    for name in ("cpu2", "cpu3", "cpu34"):
        (tmp_path / "devices/virtual/cpuid" / name).mkdir(parents=True)
    assert cpuid_device_nodes(tmp_path, [34, 4, 2]) == [
        Path("/dev/cpu/2/cpuid"),
        Path("/dev/cpu/34/cpuid"),
    ]


def test_host_without_cpuid_module_has_no_device_nodes(make_up: MakeUp) -> None:
    assert cpuid_device_nodes(make_up("1x2x1", {1}).root, [0, 1]) == []


def test_machine_is_current_until_a_list_of_the_kernel_changes(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    before = read(made_up.root)
    assert is_current(made_up.root, before)
    made_up.set_offline(5)
    assert not is_current(made_up.root, before)
    assert is_current(made_up.root, read(made_up.root, before))
    made_up.set_online(5)
    assert is_current(made_up.root, before)


@pytest.mark.parametrize(
    "file", ["cpu/present", "cpu/possible", "cpu/isolated", "cpu/online", "node/online"]
)
def test_machine_is_not_current_if_this_list_differs(make_up: MakeUp, file: str) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    before = read(made_up.root)
    path = made_up.root / "devices" / "system" / file
    path.write_text("0-9\n" if file == "cpu/possible" else "0\n")
    assert not is_current(made_up.root, before)
