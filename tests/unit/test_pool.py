"""The pools and devices of a machine and a configuration, and their names."""

from __future__ import annotations

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host import machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.pool import Device, Pool

from .conftest import MakeUp


def named(resource_name: str) -> Pool:
    return Pool(config=PoolConfig(resource_name=resource_name), devices={})


def make(host: Machine, config: PoolConfig) -> Pool:
    """The only pool of a host."""
    [made] = pool.make(host, Config(pools=(config,)))
    return made


def single(cpu: int, node: int | None, *, healthy: bool = True) -> Device:
    """The device of a single CPU."""
    own = frozenset({cpu})
    reason = "" if healthy else f"CPU {cpu} is offline"
    return Device(id=str(cpu), cpus=own, core=own, node=node, reason=reason)


def test_one_device_for_each_isolated_cpu(make_up: MakeUp) -> None:
    made = make(machine.read(make_up("2x2x2", {1, 2, 5, 6}).root), PoolConfig())
    assert made.resource_name == "windriver.com/isolcpus"
    assert made.devices == {
        "1": single(1, 0),
        "2": single(2, 1),
        "5": single(5, 0),
        "6": single(6, 1),
    }


def test_devices_are_in_the_order_of_their_cpus(make_up: MakeUp) -> None:
    made = make(machine.read(make_up("1x12x1", {10, 9, 2, 11}).root), PoolConfig())
    assert list(made.devices) == ["2", "9", "10", "11"]


def test_cpu_taken_offline_becomes_unhealthy(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 6})
    made_up.set_offline(6)
    made = make(machine.read(made_up.root), PoolConfig())
    assert made.devices == {
        "2": single(2, 1),
        "6": single(6, 1, healthy=False),
    }
    assert made.unhealthy == ["6"]


def test_cpu_brought_back_is_healthy_again(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 6})
    made_up.set_offline(6)
    made_up.set_online(6)
    assert make(machine.read(made_up.root), PoolConfig()).unhealthy == []


def test_host_without_numa_has_devices_without_node(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    (made_up.directory / "cpu1/node0").rmdir()
    made = make(machine.read(made_up.root), PoolConfig())
    assert made.devices == {"1": single(1, None)}


def test_host_without_isolated_cpus_has_no_devices(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", set()).root)
    assert make(host, PoolConfig()).devices == {}
    assert make(host, PoolConfig()).warnings == (
        "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line",
    )


def test_isolated_cpu_that_is_not_present_is_not_offered(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    (made_up.directory / "isolated").write_text("2-3,12-13\n")
    host = machine.read(made_up.root)
    assert list(make(host, PoolConfig()).devices) == ["2", "3"]
    assert make(host, PoolConfig()).warnings == (
        "CPU 12-13 is isolated but not present and is not offered",
    )


def test_configured_cpus_are_offered_only_if_isolated(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3, 6, 7}).root)
    config = PoolConfig(cpus=frozenset({0, 1, 3, 5, 6}))
    assert list(make(host, config).devices) == ["3", "6"]
    assert make(host, config).warnings == (
        "CPU 0-1,5 of CPUs= is not isolated and is not offered: isolated CPUs are 2-3,6-7",
    )


def test_configured_isolated_cpus_cause_no_warning(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3, 6, 7}).root)
    config = PoolConfig(cpus=frozenset({3, 6}))
    assert list(make(host, config).devices) == ["3", "6"]
    assert make(host, config).warnings == ()


def test_two_causes_give_two_warnings(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", set())
    (made_up.directory / "isolated").write_text("2-3,12\n")
    config = PoolConfig(cpus=frozenset({0, 2, 12}))
    assert make(machine.read(made_up.root), config).warnings == (
        "CPU 0 of CPUs= is not isolated and is not offered: isolated CPUs are 2-3,12",
        "CPU 12 is isolated but not present and is not offered",
    )


def test_host_without_isolated_cpus_gives_one_warning(make_up: MakeUp) -> None:
    config = PoolConfig(cpus=frozenset({0, 1}))
    assert make(machine.read(make_up("1x2x1", set()).root), config).warnings == (
        "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line",
    )


def test_ordinary_host_causes_no_warning(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x1", {2, 3}).root)
    assert make(host, PoolConfig()).warnings == ()


def test_pool_has_the_configured_names(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x2x1", {1}).root)
    made = make(host, PoolConfig(resource_name="example.com/rt", device_nodes="no"))
    assert (made.resource_name, made.config.device_nodes) == ("example.com/rt", "no")


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
    assert named("windriver.com/isolcpus").config.endpoint == "windriver.com-isolcpus.sock"


# Granularity=core; on 2x2x2 CPU 4 is the sibling of 0

CORES = PoolConfig(granularity="core")
ONE_THREAD = PoolConfig(granularity="core", threads="one")


def core(*cpus: int, given: set[int], node: int, reason: str = "") -> Device:
    return Device(
        id=str(min(cpus)),
        cpus=frozenset(given),
        core=frozenset(cpus),
        node=node,
        reason=reason,
    )


def test_one_device_for_each_core(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x2x2", {1, 2, 5, 6}).root)
    assert make(host, CORES).devices == {
        "1": core(1, 5, given={1, 5}, node=0),
        "2": core(2, 6, given={2, 6}, node=1),
    }


def test_one_thread_of_each_core(make_up: MakeUp) -> None:
    made = make(machine.read(make_up("2x2x2", {1, 2, 5, 6}).root), ONE_THREAD)
    assert made.devices == {
        "1": core(1, 5, given={1}, node=0),
        "2": core(2, 6, given={2}, node=1),
    }
    assert made.cpus == {1, 2}


def test_partly_isolated_core_is_not_offered(make_up: MakeUp) -> None:
    made = make(machine.read(make_up("2x2x2", {1, 2, 5}).root), CORES)
    assert list(made.devices) == ["1"]
    assert made.warnings == ("core 2,6 is not offered as a whole: CPU 6 is not isolated",)


def test_core_with_a_thread_outside_the_pool_is_not_offered(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x4x4", set(range(4, 15))).root)
    made = make(
        host, PoolConfig(granularity="core", threads="one", cpus=frozenset({5, 9, 6, 10, 14}))
    )
    assert made.devices == {}
    assert made.warnings == (
        "core 1,5,9,13 is not offered as a whole:"
        " CPU 1 is not isolated and CPU 13 is not in this pool",
        "core 2,6,10,14 is not offered as a whole: CPU 2 is not isolated",
    )


def test_core_with_an_offline_thread_is_unhealthy(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    before = machine.read(made_up.root)
    made_up.set_offline(5)
    now = machine.read(made_up.root, before)
    assert make(now, CORES).devices == {
        "1": core(1, 5, given={1, 5}, node=0, reason="CPU 5 is offline"),
        "2": core(2, 6, given={2, 6}, node=1),
    }
    assert make(now, CORES).warnings == ()
    # The only thread that containers get is still online.
    assert make(now, ONE_THREAD).unhealthy == []


def test_core_whose_lowest_thread_goes_offline_keeps_its_id(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    before = machine.read(made_up.root)
    made_up.set_offline(1)
    now = machine.read(made_up.root, before)
    assert make(now, ONE_THREAD).devices == {
        "1": core(1, 5, given={1}, node=0, reason="CPU 1 is offline"),
        "2": core(2, 6, given={2}, node=1),
    }


def test_core_whose_threads_all_go_offline_is_kept(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    known = machine.read(made_up.root)
    for cpu in (1, 5):
        made_up.set_offline(cpu)
        known = machine.read(made_up.root, known)
    assert make(known, CORES).devices["1"] == core(
        1, 5, given={1, 5}, node=0, reason="CPU 1,5 is offline"
    )
    for cpu in (5, 1):
        made_up.set_online(cpu)
        known = machine.read(made_up.root, known)
    assert make(known, CORES).devices["1"] == core(1, 5, given={1, 5}, node=0)


def test_core_with_a_possible_unknown_thread_is_unhealthy(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    made_up.set_offline(5)
    first = machine.read(made_up.root)
    assert make(first, CORES).devices == {
        "1": core(
            1,
            5,
            given={1, 5},
            node=0,
            reason="CPU 5 is offline and probably a thread of this core",
        ),
        "2": core(2, 6, given={2, 6}, node=1),
    }
    assert make(first, CORES).warnings == ()
    # Reading the machine again adds no information; the CPU coming online does.
    assert make(machine.read(made_up.root, first), CORES).unhealthy == ["1"]
    made_up.set_online(5)
    assert make(machine.read(made_up.root, first), CORES).devices == {
        "1": core(1, 5, given={1, 5}, node=0),
        "2": core(2, 6, given={2, 6}, node=1),
    }


def test_host_without_smt_has_cores_of_one_thread(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    made_up.set_offline(4, 5, 6, 7)
    assert make(machine.read(made_up.root), CORES).devices == {
        "1": core(1, given={1}, node=0),
        "2": core(2, given={2}, node=1),
    }


# Several pools


def pools(host: Machine, *configs: PoolConfig) -> tuple[Pool, ...]:
    return pool.make(host, Config(pools=configs))


def test_isolated_means_cpus_in_no_other_pool(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3, 4, 5, 6, 7}).root)
    plugin, dpdk, rt = pools(
        host,
        PoolConfig(),
        PoolConfig(resource_name="example.com/dpdk", cpus=frozenset({4, 5})),
        PoolConfig(resource_name="example.com/rt", cpus=frozenset({0, 7})),
    )
    assert [set(one.cpus) for one in (plugin, dpdk, rt)] == [{2, 3, 6}, {4, 5}, {7}]
    assert plugin.warnings == ()
    assert rt.warnings == (
        "CPU 0 of CPUs= is not isolated and is not offered: isolated CPUs are 2-7",
    )


def test_pool_without_remaining_cpus_gives_a_warning(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3}).root)
    plugin, _ = pools(
        host, PoolConfig(), PoolConfig(resource_name="example.com/a", cpus=frozenset({2, 3}))
    )
    assert plugin.devices == {}
    assert plugin.warnings == (
        "no CPU is left for windriver.com/isolcpus: all isolated CPUs are in [Pool] sections",
    )


def test_two_pools_with_one_variable_give_a_warning(make_up: MakeUp) -> None:
    host = machine.read(make_up("1x8x1", {2, 3}).root)
    plugin, other = pools(
        host, PoolConfig(), PoolConfig(resource_name="example.com/isolcpus", cpus=frozenset({3}))
    )
    assert plugin.warnings == ()
    assert other.warnings == (
        "example.com/isolcpus and windriver.com/isolcpus use the same environment variable"
        " ISOLCPUS: a container that requests both gets only one of them there",
    )
