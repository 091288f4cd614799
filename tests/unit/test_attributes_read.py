"""What the attributes of CPUs and devices are read from."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.host.devices import Location, locate
from isolcpus_dp.host.machine import CoreType, Machine
from isolcpus_dp.simulator.machine import MadeUpMachine

from . import machines
from .conftest import MakeUp


def types(host: Machine) -> dict[int, CoreType | None]:
    return {cpu: one.core_type for cpu, one in host.cpus.items()}


def write(made_up: MadeUpMachine, name: str, text: str) -> None:
    path = made_up.root / "devices" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


# Core types


def test_machine_with_one_kind_of_cores_has_performance_cores(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    made_up.set_offline(3)
    assert types(machine.read(made_up.root)) == dict.fromkeys(range(4), "performance")


def test_core_types_of_x86_are_those_of_its_perf_drivers(make_up: MakeUp) -> None:
    made_up = make_up("1x6x1", set())
    write(made_up, "cpu_core/cpus", "0-1")
    write(made_up, "cpu_atom/cpus", "2-3")
    write(made_up, "cpu_lowpower/cpus", "4-5")
    assert types(machine.read(made_up.root)) == {
        **dict.fromkeys((0, 1), "performance"),
        **dict.fromkeys((2, 3, 4, 5), "efficient"),
    }


def test_core_type_of_x86_is_unknown_while_offline(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    write(made_up, "cpu_core/cpus", "0-1")
    write(made_up, "cpu_atom/cpus", "2-3")
    before = machine.read(made_up.root)
    made_up.set_offline(1, 3)
    write(made_up, "cpu_core/cpus", "0")
    write(made_up, "cpu_atom/cpus", "2")
    known = {0: "performance", 2: "efficient"}
    assert types(machine.read(made_up.root)) == {**known, 1: None, 3: None}
    after = types(machine.read(made_up.root, before))
    assert after == {**known, 1: "performance", 3: "efficient"}


@pytest.mark.parametrize("hidden", [False, True])
def test_core_types_of_arm_come_from_the_capacity(tmp_path: Path, hidden: bool) -> None:
    """Newer kernels hide the capacity of an offline CPU. The big cores remain the big ones."""
    made_up = machines.build("big.LITTLE", tmp_path)
    little = dict.fromkeys(range(4), "efficient")
    assert types(machine.read(made_up.root)) == {
        **little,
        **dict.fromkeys((4, 5, 6, 7), "performance"),
    }
    made_up.set_offline(4, 5, 6, 7)
    if hidden:
        for cpu in (4, 5, 6, 7):
            (made_up.directory / f"cpu{cpu}/cpu_capacity").unlink()
    big = dict.fromkeys((4, 5, 6, 7), None if hidden else "performance")
    assert types(machine.read(made_up.root)) == {**little, **big}


def test_only_the_highest_of_three_capacities_is_performance(make_up: MakeUp) -> None:
    made_up = make_up("1x3x1", set())
    for cpu, capacity in enumerate(("250", "760", "1024")):
        write(made_up, f"system/cpu/cpu{cpu}/cpu_capacity", capacity)
    read = types(machine.read(made_up.root))
    assert read == {0: "efficient", 1: "efficient", 2: "performance"}


# Devices


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A PCI network card on node 1 with an interface, and a virtio card whose node is unknown."""
    card = tmp_path / "devices/pci0000:3a/0000:3b:00.0"
    virtio = tmp_path / "devices/pci0000:00/0000:00:03.0"
    for device, interface, node in ((card, "net/eth0", "1"), (virtio, "virtio0/net/ens3", "-1")):
        (device / interface).mkdir(parents=True)
        (device / "numa_node").write_text(f"{node}\n")
    (tmp_path / "devices/virtual/net/bond0").mkdir(parents=True)
    for name, target in (
        ("bus/pci/devices/0000:3b:00.0", "../../../devices/pci0000:3a/0000:3b:00.0"),
        ("class/net/eth0", "../../devices/pci0000:3a/0000:3b:00.0/net/eth0"),
        ("class/net/ens3", "../../devices/pci0000:00/0000:00:03.0/virtio0/net/ens3"),
        ("class/net/bond0", "../../devices/virtual/net/bond0"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "location"),
    [
        ("0000:3b:00.0", Location(1)),
        ("0000:3b:00.1", Location(found=False)),
        ("eth0", Location(1)),
        ("eth1", Location(found=False)),
        ("ens3", Location(None)),
        ("bond0", Location(None)),
    ],
)
def test_device_is_on_the_numa_node_of_its_pci_device(
    root: Path, name: str, location: Location
) -> None:
    assert locate(root, [name]) == {name: location}


def test_interface_is_found_where_its_own_directory_is_hidden(root: Path) -> None:
    """As in a network namespace that it is not in."""
    (root / "devices/pci0000:3a/0000:3b:00.0/net/eth0").rmdir()
    assert locate(root, ["eth0"]) == {"eth0": Location(1)}
