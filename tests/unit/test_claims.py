"""Which pool has which CPU, when the daemons start while CPUs are offline, and while they run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from isolcpus_dp import pool
from isolcpus_dp.config import Count, PoolConfig
from isolcpus_dp.host import machine, probable
from isolcpus_dp.host.devices import Location

from . import machines
from .conftest import MakeUp, without_smt
from .pools import claimed, configured, shown

FOUR, TWO_OF_EACH = Count(4, per_node=False), Count(2, per_node=True)


# The order of the file


def test_first_of_two_pools_that_match_gets_the_cpu() -> None:
    config = configured(PoolConfig(numa_nodes=frozenset({1})), PoolConfig(core_type="performance"))
    assert claimed(machines.read("memory-only nodes"), config) == ["9-15,25-31", "1-7,17-23", ""]


def test_numbers_claim_in_the_order_of_the_file_too(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x4x1", {1, 2, 3, 5, 6, 7}).root)
    numbers, node = PoolConfig(cpus=frozenset({2, 5})), PoolConfig(numa_nodes=frozenset({0}))
    assert claimed(host, configured(numbers, node)) == ["2,5", "1,3", "6-7"]
    config = configured(node, numbers)
    assert claimed(host, config) == ["1-3", "5", "6-7"]
    assert pool.make(host, config)[2].warnings == (
        "CPU 2 of CPUs= is in [Pool a], which claims CPUs before [Pool b]",
    )


def test_attributes_select_from_the_cpu_list(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x4x1", {1, 2, 3, 5, 6, 7}).root)
    config = configured(PoolConfig(cpus=frozenset({2, 3, 5}), numa_nodes=frozenset({0})))
    assert claimed(host, config) == ["2-3", "1,5-7"]


def test_attributes_of_plugin_select_from_what_is_left(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x4x1", {1, 2, 3, 5, 6, 7}).root)
    config = configured(PoolConfig(count=Count(1, per_node=True)))
    plugin = replace(config.pools[0], packages=frozenset({1}))
    config = replace(config, pools=(plugin, *config.pools[1:]))
    assert claimed(host, config) == ["1,5", "6-7"]


def test_count_takes_whole_cores_first(make_up: MakeUp) -> None:
    # CPU 1 is the thread of a core whose other thread, CPU 9, is not isolated.
    host = machine.read(make_up("1x8x2", {1, 2, 3, 10, 11}).root)
    assert claimed(host, configured(PoolConfig(count=FOUR))) == ["2-3,10-11", "1"]


def test_count_that_cannot_be_met_takes_all(make_up: MakeUp) -> None:
    host = machine.read(make_up("2x4x1", {1, 2, 3, 5}).root)
    config = configured(PoolConfig(count=TWO_OF_EACH))
    assert claimed(host, config) == ["1-2,5", "3"]
    assert pool.make(host, config)[1].warnings == (
        "Count=2/node: only 1 CPU is left on NUMA node 1",
    )


# A device


def test_pool_near_a_device_has_the_cpus_of_its_node() -> None:
    config = configured(PoolConfig(near="eth0"))
    host = machines.read("a node without CPUs")
    assert claimed(host, config, eth0=Location(2)) == ["9-15,25-31", "1-7,17-23"]


def test_all_cpus_are_near_a_device_of_a_machine_with_one_node() -> None:
    config = configured(PoolConfig(near="eth0"))
    for name in ("1x4x1", "no NUMA"):
        host = machines.read(name)
        assert pool.claim(host, config, {"eth0": Location()}).resources.keys() == host.isolated
        assert {*pool.claim(host, config, {"eth0": Location(0)}).resources.values()} == {
            "example.com/a"
        }


def test_device_without_cpus_is_explained() -> None:
    config = configured(PoolConfig(near="eth0"))
    host = machines.read("a node without CPUs")

    def warnings(location: Location) -> tuple[str, ...]:
        return pool.make(host, config, pool.claim(host, config, {"eth0": location}))[1].warnings

    assert warnings(Location(1)) == (
        "Near=eth0 matches no isolated CPU: the device has numa_node 1, isolated CPUs have"
        " NUMANodes=0,2",
    )
    assert warnings(Location()) == (
        "Near=eth0 matches no isolated CPU: the NUMA node of the device is unknown (its numa_node"
        " is -1 or absent)",
    )
    assert warnings(Location(found=False)) == (
        "Near=eth0 matches no isolated CPU: this machine has no such device",
    )


def test_attribute_that_matches_nothing_is_explained() -> None:
    config = configured(PoolConfig(numa_nodes=frozenset({4, 5}), packages=frozenset({2})))
    assert pool.make(machines.read("memory-only nodes"), config)[1].warnings == (
        "NUMANodes=4-5 matches no isolated CPU: isolated CPUs have NUMANodes=0-1",
        "Packages=2 matches no isolated CPU: isolated CPUs have Packages=0-1",
    )


# CPUs that are offline when the claims are made


def test_offline_thread_is_claimed_with_its_core(make_up: MakeUp) -> None:
    config = configured(PoolConfig(count=FOUR, packages=frozenset({0})))
    made_up = make_up("2x8x2", set(range(1, 8)) | set(range(17, 24)))
    online = claimed(machine.read(made_up.root), config)
    made_up.set_offline(17)
    assert claimed(machine.read(made_up.root), config) == online == ["1-2,17-18", "3-7,19-23"]


def test_offline_core_is_claimed_as_if_it_were_online(make_up: MakeUp) -> None:
    config = configured(PoolConfig(count=FOUR, packages=frozenset({0})))
    made_up = make_up("2x8x2", set(range(1, 8)) | set(range(17, 24)))
    made_up.set_offline(1, 17)
    host = machine.read(made_up.root)
    assert claimed(host, config) == ["1-2,17-18", "3-7,19-23"]
    assert pool.make(host, config)[1].unhealthy == ["1", "17"]


def test_offline_e_core_is_in_no_pool_until_it_comes_online(tmp_path: Path) -> None:
    made_up = machines.build("hybrid 8P+16E", tmp_path)
    atom = made_up.root / "devices/cpu_atom/cpus"
    made_up.set_offline(20)
    atom.write_text("16-19,21-31\n")
    config = configured(PoolConfig(core_type="efficient"))
    host = machine.read(made_up.root)
    claims = pool.claim(host, config, {})
    assert shown(claims, config) == ["16-19,21-31", "2-15"]
    assert pool.make(host, config, claims)[1].warnings == (
        "CPU 20 is offline and in no pool until it comes online: whether it has CoreType=efficient"
        " is unknown",
    )
    made_up.set_online(20)
    atom.write_text("16-31\n")
    host = machine.read(made_up.root, host)
    claims = pool.claim(host, config, {}, claims)
    assert shown(claims, config) == ["16-31", "2-15"]
    assert pool.make(host, config, claims)[1].warnings == ()


def test_machine_with_offline_cpus_is_made_up_as_it_is_read(tmp_path: Path) -> None:
    made_up = machines.build("hybrid 8P+16E", tmp_path)
    made_up.set_offline(3, 8, 9, 20)
    (made_up.root / "devices/cpu_core/cpus").write_text("0-2,4-7,10-15\n")
    (made_up.root / "devices/cpu_atom/cpus").write_text("16-19,21-31\n")
    host = machines.without(machines.read("hybrid 8P+16E"), {3, 8, 9, 20})
    assert host == machine.read(made_up.root)


def test_offline_core_is_in_the_cache_that_lacks_one(tmp_path: Path) -> None:
    made_up = machines.build("2x64x2 with 8 nodes", tmp_path)
    whole = machine.read(made_up.root)
    made_up.set_offline(9, 137, 32, 160)
    host = probable.positions(machine.read(made_up.root))
    assert host.cpus[9] == replace(whole.cpus[9], online=False, core=None, die=None)
    assert host.cpus[10] == whole.cpus[10]
    assert {host.cpus[cpu].cache for cpu in (32, 160)} == {whole.cpus[33].cache}


# While the claims are kept


def test_claimed_cpus_stay_whatever_goes_offline(tmp_path: Path) -> None:
    made_up = machines.build("hybrid 8P+16E", tmp_path)
    config = configured(PoolConfig(core_type="efficient", near="eth0"), PoolConfig(count=FOUR))
    host = machine.read(made_up.root)
    claims = pool.claim(host, config, {"eth0": Location(0)})
    assert shown(claims, config) == ["16-31", "2-5", "6-15"]
    made_up.set_offline(2, 3, *range(16, 32))
    (made_up.root / "devices/cpu_atom/cpus").write_text("\n")
    host = machine.read(made_up.root, host)
    gone = pool.claim(host, config, {"eth0": Location(found=False)}, claims)
    assert shown(gone, config) == ["16-31", "2-5", "6-15"]
    assert pool.make(host, config, gone)[1].unhealthy == [str(cpu) for cpu in range(16, 32)]


def test_claims_of_a_reload_do_not_depend_on_cpus_that_went_offline(make_up: MakeUp) -> None:
    made_up = make_up("2x4x2", set(range(16)) - {0, 4, 8, 12})
    config = configured(PoolConfig(numa_nodes=frozenset({1}), count=FOUR))
    host = machine.read(made_up.root)
    assert claimed(host, config) == ["5-6,13-14", "1-3,7,9-11,15"]
    for cpu in (5, 6, 14):
        made_up.set_offline(cpu)
        host = machine.read(made_up.root, host)
        assert claimed(host, config) == ["5-6,13-14", "1-3,7,9-11,15"]


def test_thread_that_comes_online_joins_the_pool_of_its_core(make_up: MakeUp) -> None:
    made_up = without_smt(make_up("1x8x2", set(range(1, 8)) | set(range(9, 16))))
    config = configured(PoolConfig(count=FOUR, granularity="core"))
    host = machine.read(made_up.root)
    claims = pool.claim(host, config, {})
    assert shown(claims, config) == ["1-4", "5-7"]
    (made_up.directory / "smt/control").write_text("on\n")
    made_up.set_online(*range(8, 16))
    host = machine.read(made_up.root, host)
    claims = pool.claim(host, config, {}, claims)
    assert shown(claims, config) == ["1-4,9-12", "5-7,13-15"]
    made = pool.make(host, config, claims)[1]
    assert {device.id: device.cpus for device in made.devices.values()} == {
        "1": {1, 9},
        "2": {2, 10},
        "3": {3, 11},
        "4": {4, 12},
    }


def test_cpu_that_comes_online_fills_a_pool_that_lacks_it(tmp_path: Path) -> None:
    made_up = machines.build("hybrid 8P+16E", tmp_path)
    late = range(17, 32)
    made_up.set_offline(*late)
    (made_up.root / "devices/cpu_atom/cpus").write_text("16\n")
    config = configured(PoolConfig(core_type="efficient", count=FOUR))
    host = machine.read(made_up.root)
    claims = pool.claim(host, config, {})
    assert shown(claims, config) == ["16", "2-15"]
    made_up.set_online(*late)
    (made_up.root / "devices/cpu_atom/cpus").write_text("16-31\n")
    claims = pool.claim(machine.read(made_up.root, host), config, {}, claims)
    assert shown(claims, config) == ["16-19", "2-15,20-31"]


def test_claims_of_a_worker_hold_for_the_next_one(make_up: MakeUp) -> None:
    host = make_up("1x8x1", {2, 3, 4, 5, 6, 7})
    config = configured(PoolConfig(count=Count(5, per_node=False)))

    def added(*cpus: int) -> machine.Machine:
        for name in ("present", "online"):
            (host.directory / name).write_text(",".join(map(str, cpus)))
        return machine.read(host.root)

    parent = pool.claim(added(0, 1, 2, 3, 4, 5), config, {})
    worker = pool.claim(added(0, 1, 2, 3, 4, 5, 7), config, {}, parent)
    worker = pool.claim(added(0, 1, 2, 3, 4, 5, 6, 7), config, {}, worker)
    assert shown(worker, config) == ["2-5,7", "6"]
    learned = parent.with_more(worker.more_than(parent))
    assert shown(pool.claim(machine.read(host.root), config, {}, learned), config) == ["2-5,7", "6"]
