"""A resource of the daemon: what it logs about its devices, and its text in STATUS."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet.resource import Resource, status
from isolcpus_dp.pool import Pool
from isolcpus_dp.simulator.machine import MadeUpMachine

from .conftest import MakeUp, without_smt

RESOURCE = "windriver.com/isolcpus"
CORES = PoolConfig(granularity="core")


class Host:
    """A simulated host with one resource; `look_again` does what the daemon does on a uevent."""

    def __init__(self, tree: MadeUpMachine, config: PoolConfig) -> None:
        self.tree = tree
        self._config = config
        self._machine = machine.read(tree.root)
        self.resource = Resource(
            self._machine, self._pool(), tree.root / "plugins", lambda cpus: [], lambda *_: None
        )

    def look_again(self) -> bool:
        self._machine = machine.read(self.tree.root, self._machine)
        return self.resource.offer(self._machine, self._pool())

    def _pool(self) -> Pool:
        [made] = pool.make(self._machine, Config(pools=(self._config,)))
        return made


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def entries(log: pytest.LogCaptureFixture) -> list[tuple[str, str, str | None]]:
    """Event, message and CPUs of the entries so far, which are then forgotten."""
    found = [
        (record.__dict__["EVENT"], record.getMessage(), record.__dict__.get("CPU"))
        for record in log.records
    ]
    log.clear()
    return found


def test_start_is_logged_with_the_offered_cpus(
    make_up: MakeUp, log: pytest.LogCaptureFixture
) -> None:
    Host(make_up("2x2x2", {1, 2, 5, 6}), PoolConfig()).resource.announce()
    assert entries(log) == [("started", f"offering CPU 1-2,5-6 as {RESOURCE}", "1-2,5-6")]


def test_start_without_isolated_cpus_is_logged(
    make_up: MakeUp, log: pytest.LogCaptureFixture
) -> None:
    Host(make_up("1x2x1", set()), PoolConfig()).resource.announce()
    assert entries(log) == [
        ("started", f"offering CPU (none) as {RESOURCE}", ""),
        (
            "pool_warning",
            "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line",
            None,
        ),
    ]


def test_start_logs_the_reason_of_each_unhealthy_device(
    make_up: MakeUp, log: pytest.LogCaptureFixture
) -> None:
    tree = make_up("1x4x2", {2, 3, 6, 7})
    tree.set_offline(6)
    Host(tree, CORES).resource.announce()
    assert entries(log)[1:] == [
        (
            "pool_warning",
            "core 2,6 is unhealthy: CPU 6 is offline and probably a thread of this core",
            "2,6",
        )
    ]
    Host(tree, PoolConfig()).resource.announce()
    assert entries(log)[1:] == [("pool_warning", "CPU 6 is offline", "6")]


def test_changed_cpus_are_logged_once(make_up: MakeUp, log: pytest.LogCaptureFixture) -> None:
    host = Host(make_up("2x2x2", {1, 2, 5, 6}), PoolConfig())
    host.tree.set_offline(0, 5)
    assert host.look_again()
    assert entries(log) == [("devices_changed", "CPU 5 is offline", "5")]
    assert not host.look_again()
    assert entries(log) == []
    host.resource.register()
    host.tree.set_online(5)
    assert host.look_again()
    assert entries(log) == [("devices_changed", "CPU 5 is online; reported to the kubelet", "5")]


def test_changed_cores_are_logged_with_the_reason(
    make_up: MakeUp, log: pytest.LogCaptureFixture
) -> None:
    host = Host(make_up("2x2x2", {1, 2, 5, 6}), CORES)
    host.tree.set_offline(5)
    host.look_again()
    assert entries(log) == [("devices_changed", "core 1,5 is unhealthy: CPU 5 is offline", "1,5")]
    host.tree.set_offline(1)
    host.look_again()
    assert entries(log) == [("devices_changed", "core 1,5 is unhealthy: CPU 1,5 is offline", "1,5")]
    host.tree.set_online(1, 5)
    host.look_again()
    assert entries(log) == [("devices_changed", "core 1,5 is online", "1,5")]


def test_rest_of_a_core_is_logged(make_up: MakeUp, log: pytest.LogCaptureFixture) -> None:
    config = PoolConfig(granularity="core", incomplete_cores="offer")
    host = Host(make_up("2x2x2", {1, 2, 5, 6}), config)
    host.tree.set_offline(5)
    assert host.look_again()
    assert entries(log) == [("devices_changed", "core 1,5 is offered as CPU 1", "1,5")]
    host.tree.set_online(5)
    assert host.look_again()
    assert entries(log) == [("devices_changed", "core 1,5 is offered as CPU 1,5", "1,5")]


def test_core_that_is_no_longer_whole_is_logged(
    make_up: MakeUp, log: pytest.LogCaptureFixture
) -> None:
    tree = make_up("1x4x2", {2, 3})
    tree.set_offline(6, 7)
    host = Host(tree, CORES)
    host.tree.set_online(6)
    host.look_again()
    assert entries(log) == [
        (
            "pool_warning",
            "core 2,6 is not offered as a whole: CPU 6 is not isolated",
            None,
        ),
        ("devices_changed", "CPU 2 is no longer offered", "2"),
    ]


def test_cpus_that_appear_later_are_logged(make_up: MakeUp, log: pytest.LogCaptureFixture) -> None:
    host = Host(without_smt(make_up("1x4x2", {3, 7})), PoolConfig())
    host.resource.announce()
    assert entries(log) == [
        ("started", f"offering CPU 3 as {RESOURCE}", "3"),
        (
            "pool_warning",
            "CPU 7 is offline because SMT is off, and is not offered until it comes online",
            None,
        ),
    ]
    (host.tree.directory / "smt/control").write_text("on\n")
    host.tree.set_online(4, 5, 6, 7)
    host.look_again()
    assert entries(log) == [("devices_changed", "CPU 7 is online", "7")]


def test_status_has_the_resources_by_state(make_up: MakeUp, tmp_path: Path) -> None:
    tree = make_up("1x4x2", {3, 7})
    resources = [Host(tree, PoolConfig(resource_name=f"a.b/{name}")).resource for name in "xyz"]
    assert status(resources) == (
        "Waiting for the kubelet to register a.b/x: 2 devices, 0 unhealthy;"
        " a.b/y: 2 devices, 0 unhealthy; a.b/z: 2 devices, 0 unhealthy"
    )
    assert [resources[0].refuse("no"), resources[0].refuse("no")] == [True, False]
    resources[1].register()
    assert status(resources) == (
        "Waiting for the kubelet to register a.b/z: 2 devices, 0 unhealthy."
        " Rejected by the kubelet: no. Registered a.b/y: 2 devices, 0 unhealthy"
    )
    assert resources[1].cpus == {3, 7}
