"""Which devices a machine and a configuration make, and what they are called."""

from __future__ import annotations

import pytest

from isolcpus_dp import machine, pool
from isolcpus_dp.config import PoolConfig
from isolcpus_dp.pool import Device, Pool

from .conftest import MakeUp


def named(resource_name: str) -> Pool:
    return Pool(resource_name=resource_name, device_nodes="auto", devices={})


def test_one_device_for_each_isolated_cpu(make_up: MakeUp) -> None:
    made = pool.make(machine.read(make_up("2x2x2", {1, 2, 5, 6}).root), PoolConfig())
    assert made.resource_name == "windriver.com/isolcpus"
    assert made.device_nodes == "auto"
    assert made.devices == {
        "1": Device(id="1", cpus=frozenset({1}), node=0, healthy=True),
        "2": Device(id="2", cpus=frozenset({2}), node=1, healthy=True),
        "5": Device(id="5", cpus=frozenset({5}), node=0, healthy=True),
        "6": Device(id="6", cpus=frozenset({6}), node=1, healthy=True),
    }


def test_devices_are_in_the_order_of_their_cpus(make_up: MakeUp) -> None:
    made = pool.make(machine.read(make_up("1x12x1", {10, 9, 2, 11}).root), PoolConfig())
    assert list(made.devices) == ["2", "9", "10", "11"]


def test_cpu_taken_offline_becomes_unhealthy(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 6})
    made_up.set_offline(6)
    made = pool.make(machine.read(made_up.root), PoolConfig())
    assert made.devices == {
        "2": Device(id="2", cpus=frozenset({2}), node=1, healthy=True),
        "6": Device(id="6", cpus=frozenset({6}), node=1, healthy=False),
    }
    assert made.unhealthy == ["6"]


def test_cpu_brought_back_is_healthy_again(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 6})
    made_up.set_offline(6)
    made_up.set_online(6)
    assert pool.make(machine.read(made_up.root), PoolConfig()).unhealthy == []


def test_host_without_numa_has_devices_without_node(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    (made_up.folder / "cpu1/node0").rmdir()
    made = pool.make(machine.read(made_up.root), PoolConfig())
    assert made.devices == {"1": Device(id="1", cpus=frozenset({1}), node=None, healthy=True)}


def test_host_without_isolated_cpus_has_no_devices(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", set()).root)
    assert pool.make(host, PoolConfig()).devices == {}
    assert pool.warnings(host, PoolConfig()) == [
        "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line"
    ]


def test_isolated_cpu_that_is_not_present_is_left_out_with_a_warning(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    (made_up.folder / "isolated").write_text("2-3,12-13\n")
    host = machine.read(made_up.root)
    assert list(pool.make(host, PoolConfig()).devices) == ["2", "3"]
    assert pool.warnings(host, PoolConfig()) == [
        "CPU 12-13 is isolated but not present and is not offered"
    ]


def test_configured_cpus_are_offered_only_if_isolated(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3, 6, 7}).root)
    config = PoolConfig(cpus=frozenset({0, 1, 3, 5, 6}))
    assert list(pool.make(host, config).devices) == ["3", "6"]
    assert pool.warnings(host, config) == [
        "CPU 0-1,5 of CPUs= is not isolated and is not offered: isolated is 2-3,6-7"
    ]


def test_configured_cpus_that_are_all_isolated_are_no_cause_for_warnings(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3, 6, 7}).root)
    config = PoolConfig(cpus=frozenset({3, 6}))
    assert list(pool.make(host, config).devices) == ["3", "6"]
    assert pool.warnings(host, config) == []


def test_two_causes_make_two_warnings(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    (made_up.folder / "isolated").write_text("2-3,12\n")
    config = PoolConfig(cpus=frozenset({0, 2}))
    assert pool.warnings(machine.read(made_up.root), config) == [
        "CPU 0 of CPUs= is not isolated and is not offered: isolated is 2-3,12",
        "CPU 12 is isolated but not present and is not offered",
    ]


def test_no_isolated_cpu_is_said_once_whatever_is_configured(make_up: MakeUp) -> None:
    config = PoolConfig(cpus=frozenset({0, 1}))
    assert pool.warnings(machine.read(make_up("1x2x1", set()).root), config) == [
        "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line"
    ]


def test_ordinary_host_is_no_cause_for_warnings(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x1", {2, 3}).root)
    assert pool.warnings(host, PoolConfig()) == []


def test_pool_takes_its_names_from_the_configuration(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    made = pool.make(host, PoolConfig(resource_name="example.com/rt", device_nodes="no"))
    assert (made.resource_name, made.device_nodes) == ("example.com/rt", "no")


@pytest.mark.parametrize(
    ("resource_name", "environment_name"),
    [
        ("windriver.com/isolcpus", "ISOLCPUS"),
        ("example.com/isolcpus-dpdk", "ISOLCPUS_DPDK"),
        ("example.com/Isol.cpus_2", "ISOL_CPUS_2"),
    ],
)
def test_environment_is_named_after_the_resource(resource_name: str, environment_name: str) -> None:
    assert named(resource_name).environment_name == environment_name


def test_endpoint_is_named_after_the_resource() -> None:
    assert named("windriver.com/isolcpus").endpoint == "windriver.com-isolcpus.sock"
