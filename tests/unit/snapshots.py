"""Snapshots of made-up machines with owners, for the tests of what is drawn of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from isolcpus_dp import machine, pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.machine import Machine
from isolcpus_dp.podresources import Allocation
from isolcpus_dp.report.snapshot import Owner, Snapshot
from isolcpus_dp.simulator.machine import MadeUpMachine, regular

RESOURCE = "windriver.com/isolcpus"


def owner(pod: str, *cpus: int, resource: str = RESOURCE) -> Owner:
    return Owner(Allocation("default", pod, "main", resource, ()), frozenset(cpus))


def look(
    host: Machine, *owners: Owner, unseen: tuple[str, ...] = (), config: PoolConfig | None = None
) -> Snapshot:
    settings = Config(pools=(config or PoolConfig(),))
    return Snapshot(host, settings, pool.make(host, settings), owners, unseen)


def big(tmp_path: Path, shape: tuple[int, int, int]) -> Machine:
    """Eight cores to a cache; the first core of each package is the host's."""
    places = [replace(place, cache=place.core // 8) for place in regular(*shape)]
    isolated = {place.cpu for place in places if place.core}
    return machine.read(MadeUpMachine(tmp_path, places, isolated).root)
