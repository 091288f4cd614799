"""Snapshots of simulated machines with owners, for the tests of the map."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host import machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.report.snapshot import Owner, Snapshot
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, regular

RESOURCE = "windriver.com/isolcpus"


def owner(pod: str, *cpus: int, resource: str = RESOURCE) -> Owner:
    return Owner(Allocation("default", pod, "main", resource, ()), frozenset(cpus))


def look(
    host: Machine, *owners: Owner, unseen: tuple[str, ...] = (), config: PoolConfig | None = None
) -> Snapshot:
    settings = Config(pools=(config or PoolConfig(),))
    return Snapshot(host, settings, pool.make(host, settings), owners, unseen)


def made_up(
    places: Iterable[Place], isolated: Iterable[int] = (), offline: Iterable[int] = ()
) -> Machine:
    """Reads a simulated machine, and removes its files: a large one has thousands of them."""
    with tempfile.TemporaryDirectory() as directory:
        tree = MadeUpMachine(Path(directory), places, isolated)
        tree.set_offline(*offline)
        return machine.read(tree.root)


@functools.cache
def big(packages: int, cores: int, threads: int) -> Machine:
    """Eight cores per cache; all cores but the first of each package are isolated."""
    shape = regular(packages, cores, threads)
    places = [replace(place, cache=place.core // 8) for place in shape]
    return made_up(places, {place.cpu for place in places if place.core})


@functools.cache
def on_8_cpus() -> Snapshot:
    host = made_up(regular(1, 4, 2), {1, 2, 3, 5, 6, 7})
    return look(host, owner("forwarder", 1, 5))


@functools.cache
def on_128_cpus() -> Snapshot:
    pods = (owner(f"pod-{at}", *range(at, at + 4), *range(at + 64, at + 68)) for at in (1, 9, 33))
    return look(big(2, 32, 2), *pods)


@functools.cache
def on_512_cpus() -> Snapshot:
    places = [
        replace(place, cache=place.core // 8, node=place.package * 4 + place.core // 32)
        for place in regular(2, 128, 2)
    ]
    host = made_up(places, range(8, 512))
    return look(host, *(owner(f"pod-{at}", at, at + 256) for at in range(8, 68)))


@functools.cache
def on_a_hybrid_machine() -> Snapshot:
    """Six cores with two threads, then eight with one."""
    places = [Place(cpu, cpu // 2, 0, 0, 0) for cpu in range(12)]
    places += [Place(cpu, cpu, 0, 0, 0) for cpu in range(12, 20)]
    host = made_up(places, range(2, 20))
    return look(host, owner("forwarder", 4, 5), owner("camera", 12, 13))


@functools.cache
def with_offline_cpus() -> Snapshot:
    isolated = {1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15}
    host = made_up(regular(2, 4, 2), isolated, offline={3, 11, 13})
    config = PoolConfig(cpus=frozenset({1, 2, 9, 10, 11}))
    disputed = owner("ended", 1, 9), owner("new", 9, 10)
    return look(host, *disputed, config=config)


@functools.cache
def without_numa_caches_and_packages() -> Snapshot:
    host = made_up(regular(1, 16, 1), {1})
    bare = {
        cpu: replace(one, package=None, node=None, cache=frozenset({cpu}))
        for cpu, one in host.cpus.items()
    }
    return look(replace(host, cpus=bare), unseen=("who owns which CPU: there is no socket",) * 3)


@functools.cache
def on_uneven_nodes() -> Snapshot:
    """Five nodes in a package, the last one with a single core; nine threads per core."""
    places = [replace(p, node=p.core // 3, cache=p.core // 3) for p in regular(1, 13, 9)]
    return look(made_up(places))


@functools.cache
def on_many_sockets() -> Snapshot:
    """One CPU per package, as in many virtual machines, each with an owner."""
    host = made_up(regular(64, 1, 1), range(64))
    return look(host, *(owner(f"pod{cpu}", cpu) for cpu in range(64)))


@functools.cache
def with_long_names() -> Snapshot:
    long = Allocation("n" * 63, "p" * 253, "c" * 63, f"{'r' * 253}/isolcpus", ())
    wide = Allocation("名" * 40, "W" * 60, "m", RESOURCE, ())
    host = big(2, 32, 2)
    return look(host, Owner(long, frozenset(range(1, 32, 2))), Owner(wide, frozenset({2, 66})))


EVERY_MACHINE = (
    on_8_cpus,
    on_128_cpus,
    on_512_cpus,
    on_a_hybrid_machine,
    with_offline_cpus,
    without_numa_caches_and_packages,
    on_uneven_nodes,
    on_many_sockets,
    with_long_names,
)
every_machine = pytest.mark.parametrize("seen_on", EVERY_MACHINE)
Seen = Callable[[], Snapshot]
