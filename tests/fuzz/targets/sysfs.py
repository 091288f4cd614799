"""The machine in sysfs: a line `PATH: TEXT` for each file; after `%%`, those that then change."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host import machine, probable
from isolcpus_dp.host.machine import Machine, MachineError
from tests.fuzz import inputs, sentences

_CONFIGURATIONS = tuple(
    Config(pools=(one,))
    for one in (
        PoolConfig(),
        PoolConfig(granularity="core"),
        PoolConfig(granularity="core", threads="one", incomplete_cores="offer"),
    )
)


def check(data: bytes) -> bool:
    """The machine is consistent whatever the files are, or one sentence says what is wrong."""
    first, changes = inputs.parts(data, 2)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        inputs.write_tree(root, first)
        before = _read(root, None)
        if before is None:
            return False
        assert machine.read(root) == before
        # Nothing has changed, so nothing is new.
        assert machine.read(root, before) == replace(before, late=frozenset())
        inputs.write_tree(root, changes)
        return _read(root, before) is not None


def _read(root: Path, before: Machine | None) -> Machine | None:
    """The machine, which is checked; None if it cannot be read."""
    try:
        found = machine.read(root, before)
    except MachineError as error:
        sentences.require(error)
        return None
    _check_machine(found)
    _check_machine(probable.positions(found))
    for settings in _CONFIGURATIONS:
        _check_pool(found, settings)
    return found


def _check_machine(found: Machine) -> None:
    assert found.online <= found.present <= found.possible
    assert found.cpus.keys() == found.present
    assert found.conflicting | found.late <= found.present
    for cpu, one in found.cpus.items():
        assert one.cpu == cpu
        assert one.online == (cpu in found.online)
        assert cpu in one.siblings
    # Each CPU is in exactly one core.
    cores = {one.siblings for one in found.cpus.values()}
    assert sum(len(core) for core in cores) == len(found.present)
    assert frozenset().union(*cores) == found.present


def _check_pool(found: Machine, settings: Config) -> None:
    """No pool has more CPUs than are isolated and present, or one of them twice."""
    [made] = pool.make(found, settings)
    assert made.cpus <= found.isolated & found.present
    assert sum(len(device.cpus) for device in made.devices.values()) == len(made.cpus)
    for warning in made.warnings:
        sentences.require(warning)
