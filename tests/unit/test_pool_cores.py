"""Cores as devices whose threads cannot all be allocated: Granularity=core."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.pool import Pool
from isolcpus_dp.simulator.machine import MadeUpMachine, Place

from .conftest import MakeUp, without_smt

CORES = PoolConfig(granularity="core")
OFFER = PoolConfig(granularity="core", incomplete_cores="offer")
ONE_THREAD = PoolConfig(granularity="core", threads="one")
OFFER_ONE = PoolConfig(granularity="core", threads="one", incomplete_cores="offer")
ALL = (CORES, OFFER, ONE_THREAD, OFFER_ONE)


def make(host: Machine, config: PoolConfig) -> Pool:
    [made] = pool.make(host, Config(pools=(config,)))
    return made


def given(host: Machine, config: PoolConfig) -> dict[str, set[int]]:
    """By id of the healthy devices: what a container gets."""
    devices = make(host, config).devices.values()
    return {device.id: set(device.cpus) for device in devices if device.healthy}


def reasons(host: Machine, config: PoolConfig) -> dict[str, str]:
    """By id of the unhealthy devices: the reason."""
    devices = make(host, config).devices.values()
    return {device.id: device.reason for device in devices if not device.healthy}


def hybrid(directory: Path, *, listed: bool) -> MadeUpMachine:
    """CPUs 0-3 are two P cores, 4-7 four E cores; all but the first core are isolated."""
    places = [Place(cpu, cpu // 2, 0, 0, 0) for cpu in range(4)]
    places += [Place(cpu, cpu, 0, 0, 0) for cpu in range(4, 8)]
    made_up = MadeUpMachine(directory / "sys", places, range(2, 8))
    if listed:
        (made_up.root / "devices/cpu_atom").mkdir()
        (made_up.root / "devices/cpu_atom/cpus").write_text("4-7\n")
    return made_up


def take_offline(made_up: MadeUpMachine, cpu: int) -> None:
    """Takes a CPU of a hybrid machine offline; its perf driver does not list it any more."""
    made_up.set_offline(cpu)
    file = made_up.root / "devices/cpu_atom/cpus"
    if file.exists():
        file.write_text(cpulist.render({4, 5, 6, 7} - {cpu}))


# A thread that is offline; on 1x4x2 CPU 6 is the sibling of 2


def test_offline_threads_that_are_not_isolated_hold_nothing_back(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 3})
    before = machine.read(made_up.root)
    assert make(before, CORES).devices == {}
    made_up.set_offline(6, 7)
    for host in (machine.read(made_up.root, before), machine.read(made_up.root)):
        assert given(host, CORES) == {"2": {2}, "3": {3}}
        assert make(host, CORES).warnings == ()
    made_up.set_online(6)
    host = machine.read(made_up.root, before)
    assert given(host, CORES) == {"3": {3}}
    assert make(host, CORES).warnings == (
        "core 2,6 is not offered as a whole: CPU 6 is not isolated",
    )


def test_offline_isolated_threads_have_the_same_devices_after_a_restart(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 3, 6, 7})
    before = machine.read(made_up.root)
    made_up.set_offline(6, 7)
    running, restarted = machine.read(made_up.root, before), machine.read(made_up.root)
    assert reasons(running, CORES) == {"2": "CPU 6 is offline", "3": "CPU 7 is offline"}
    assert reasons(restarted, CORES) == {
        "2": "CPU 6 is offline and probably a thread of this core",
        "3": "CPU 7 is offline and probably a thread of this core",
    }
    for host in (running, restarted):
        assert given(host, CORES) == {}
        assert given(host, OFFER) == {"2": {2}, "3": {3}}
        assert given(host, ONE_THREAD) == {"2": {2}, "3": {3}}
        assert {one.core for one in make(host, OFFER).devices.values()} == {
            frozenset({2, 6}),
            frozenset({3, 7}),
        }
        assert [make(host, config).warnings for config in ALL] == [()] * 4


def test_core_is_never_allocated_without_the_cpu_that_names_it(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 6})
    before = machine.read(made_up.root)
    made_up.set_offline(2)
    running, restarted = machine.read(made_up.root, before), machine.read(made_up.root)
    for config in ALL:
        assert [*make(running, config).devices] == [*make(restarted, config).devices] == ["2"]
        assert given(running, config) == given(restarted, config) == {}
    assert reasons(running, ONE_THREAD) == {"2": "CPU 2 is offline"}
    assert reasons(restarted, ONE_THREAD) == {
        "2": "CPU 2 is offline and probably a thread of this core"
    }


def test_threads_that_are_not_in_the_pool_are_left_out_if_asked(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 3, 6})
    host = machine.read(made_up.root)
    assert given(host, CORES) == {"2": {2, 6}}
    assert given(host, OFFER) == {"2": {2, 6}, "3": {3}}
    assert given(host, OFFER_ONE) == {"2": {2}, "3": {3}}
    assert make(host, OFFER).warnings == ()
    # In two pools, the core is two devices that share no CPU.
    other = replace(OFFER, section="Pool a", resource_name="a.b/c", cpus=frozenset({6}))
    first, second = pool.make(host, Config(pools=(OFFER, other)))
    assert [set(one.cpus) for one in first.devices.values()] == [{2}, {3}]
    assert [set(one.cpus) for one in second.devices.values()] == [{6}]


def test_thread_of_a_core_with_four_threads_may_be_missing(make_up: MakeUp) -> None:
    made_up = make_up("1x4x4", set(range(1, 16, 4)) | set(range(2, 16, 4)))
    made_up.set_offline(5, 13)
    host = machine.read(made_up.root)
    assert given(host, CORES) == {"2": {2, 6, 10, 14}}
    assert reasons(host, CORES) == {"1": "CPU 5,13 is offline and probably a thread of this core"}
    assert given(host, OFFER) == {"1": {1, 9}, "2": {2, 6, 10, 14}}


def test_offline_cpu_completes_no_core_of_another_node(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {1, 2, 5, 6})
    (made_up.directory / "cpu5/node0").rename(made_up.directory / "cpu5/node1")
    made_up.set_offline(5)
    host = machine.read(made_up.root)
    assert given(host, CORES) == {"1": {1}, "2": {2, 6}}
    assert make(host, CORES).warnings == (
        "CPU 5 is offline and not offered: its core is unknown until it comes online",
    )


def test_cpu_that_is_probably_of_a_housekeeping_core_is_not_offered(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {5})
    made_up.set_offline(5)
    for config in ALL:
        made = make(machine.read(made_up.root), config)
        assert made.devices == {}
        assert made.warnings == (
            "CPU 5 is offline and not offered: its core is unknown until it comes online",
        )


# Hybrid machines: cores with two threads, and cores with one


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("offline", [4, 5, 6, 7])
def test_offline_e_core_leaves_the_others_healthy(
    tmp_path: Path, offline: int, *, listed: bool
) -> None:
    made_up = hybrid(tmp_path, listed=listed)
    before = machine.read(made_up.root)
    take_offline(made_up, offline)
    rest = {str(cpu): {cpu} for cpu in (4, 5, 6, 7) if cpu != offline}
    running, restarted = machine.read(made_up.root, before), machine.read(made_up.root)
    assert given(running, CORES) == given(restarted, CORES) == {"2": {2, 3}, **rest}
    assert reasons(running, CORES) == {str(offline): f"CPU {offline} is offline"}
    assert reasons(restarted, CORES) == {}
    assert make(restarted, CORES).warnings == (
        f"CPU {offline} is offline and not offered: its core is unknown until it comes online",
    )


def test_offline_thread_of_a_p_core_is_not_taken_for_an_e_core(tmp_path: Path) -> None:
    made_up = hybrid(tmp_path, listed=True)
    take_offline(made_up, 3)
    host = machine.read(made_up.root)
    assert given(host, CORES) == {"4": {4}, "5": {5}, "6": {6}, "7": {7}}
    assert reasons(host, CORES) == {"2": "CPU 3 is offline and probably a thread of this core"}


# SMT switched off


@pytest.mark.parametrize("config", [PoolConfig(), *ALL])
def test_second_threads_are_not_offered_while_smt_is_off(
    make_up: MakeUp, config: PoolConfig
) -> None:
    made_up = make_up("1x4x2", {2, 3, 6, 7})
    before = machine.read(made_up.root)
    without_smt(made_up)
    for host in (machine.read(made_up.root, before), machine.read(made_up.root)):
        assert given(host, config) == {"2": {2}, "3": {3}}
        assert reasons(host, config) == {}
        assert make(host, config).warnings == (
            "CPU 6-7 is offline because SMT is off, and is not offered until it comes online",
        )


def test_cpu_without_siblings_taken_offline_is_unhealthy_without_smt(make_up: MakeUp) -> None:
    made_up = without_smt(make_up("1x4x2", {2, 3, 6, 7}))
    before = machine.read(made_up.root)
    made_up.set_offline(3)
    host = machine.read(made_up.root, before)
    for config in (PoolConfig(), *ALL):
        assert given(host, config) == {"2": {2}}
        assert reasons(host, config) == {"3": "CPU 3 is offline"}


def test_second_threads_are_offered_when_smt_is_on_again(make_up: MakeUp) -> None:
    made_up = without_smt(make_up("1x4x2", {2, 3, 6, 7}))
    before = machine.read(made_up.root)
    (made_up.directory / "smt/control").write_text("on\n")
    made_up.set_online(4, 5, 6, 7)
    host = machine.read(made_up.root, before)
    assert given(host, PoolConfig()) == {"2": {2}, "3": {3}, "6": {6}, "7": {7}}
    assert given(host, CORES) == {"2": {2, 6}, "3": {3, 7}}
    assert make(host, CORES).warnings == ()


# Siblings that contradict each other


@pytest.mark.parametrize(
    "siblings",
    [
        {2: "2-3", 3: "3"},
        {2: "2", 3: "2-3"},
        {2: "2-3", 3: "3,7"},
        {2: "2,6", 3: "2-3,6"},
        {2: "3", 3: "2"},
        {2: "2-3,6-7", 3: "3,7", 7: "7"},
    ],
)
@pytest.mark.parametrize("config", ALL)
def test_no_cpu_is_in_two_devices_if_sysfs_contradicts_itself(
    make_up: MakeUp, siblings: dict[int, str], config: PoolConfig
) -> None:
    made_up = make_up("1x5x2", {1, 2, 3, 6, 7, 8})
    for cpu, text in siblings.items():
        (made_up.directory / f"cpu{cpu}/topology/core_cpus_list").write_text(f"{text}\n")
    host = machine.read(made_up.root)
    # 1 and 6 are a core, 2 and 7, 3 and 8.
    cpus = [cpu for device in make(host, config).devices.values() for cpu in device.core]
    assert len(cpus) == len(set(cpus))
    assert not host.conflicting & set(cpus)
    assert {2, 3} <= host.conflicting
    [warning] = (one for one in make(host, config).warnings if "contradicts" in one)
    assert warning.endswith(f"about the core of CPU {cpulist.render(host.conflicting)}")


def test_single_cpus_do_not_depend_on_their_siblings(make_up: MakeUp) -> None:
    made_up = make_up("1x4x2", {2, 3, 6, 7})
    (made_up.directory / "cpu2/topology/core_cpus_list").write_text("2-3\n")
    host = machine.read(made_up.root)
    assert given(host, PoolConfig()) == {"2": {2}, "3": {3}, "6": {6}, "7": {7}}
    assert make(host, PoolConfig()).warnings == ()
