"""A machine with its offline CPUs where they probably are.

The kernel hides the position of an offline CPU. What depends on a position but must not change
when the daemon is restarted while a CPU is offline, such as the choice of CPUs for a pool, uses
the probable one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from isolcpus_dp.host import siblings

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Cpu, Machine


def positions(machine: Machine) -> Machine:
    """The machine with probable positions for its offline CPUs of unknown position.

    A thread of a core has the position of the core's other threads. A core of which all threads
    are offline is where the pattern of the other cores has one; its package and cache are those of
    its neighbours, if these leave no doubt. What remains unknown stays unknown.

    While SMT is off, nothing is inferred: the cores show no pattern.
    """
    if machine.present <= machine.online:
        return machine
    cpus = dict(machine.cpus)
    _return_to_caches(cpus)
    unplaced = {cpu.cpu for cpu in machine.cpus.values() if not cpu.placed}
    if not unplaced or machine.smt_off:
        return replace(machine, cpus=cpus)
    for core in siblings.cores(machine):
        known = next(cpus[cpu] for cpu in sorted(core) if cpus[cpu].placed)
        new = core & unplaced
        if new:
            _place(cpus, core, known)
            _join(cpus, known.cache, new)
            unplaced -= new
    for core in siblings.hidden_cores(machine, unplaced):
        for cpu in core:
            cpus[cpu] = replace(cpus[cpu], siblings=core, cache=core)
        cache = _cache_beside(cpus, core, unplaced)
        if cache:
            _join(cpus, cache, core)
    _infer_packages(cpus, unplaced)
    return replace(machine, cpus=cpus)


def _return_to_caches(cpus: dict[int, Cpu]) -> None:
    """Adds offline CPUs of known position to the caches from which the kernel removed them."""
    for cpu, one in list(cpus.items()):
        if one.online or not one.placed:
            continue
        cache = frozenset({cpu}).union(
            *(cpus[other].cache for other in cpus[cpu].cache & cpus.keys())
        )
        _join(cpus, cache, frozenset())


def _place(cpus: dict[int, Cpu], core: frozenset[int], known: Cpu) -> None:
    """Gives all CPUs of a core the position of a known one."""
    for cpu in core:
        if cpus[cpu].placed:
            cpus[cpu] = replace(cpus[cpu], siblings=core)
        else:
            cpus[cpu] = replace(known, cpu=cpu, online=False, siblings=core, node=cpus[cpu].node)


def _join(cpus: dict[int, Cpu], cache: frozenset[int], new: frozenset[int]) -> None:
    """Adds CPUs to a cache."""
    # A virtual machine may show CPUs that it does not have.
    for cpu in (cache | new) & cpus.keys():
        cpus[cpu] = replace(cpus[cpu], cache=cache | new)


def _cache_beside(cpus: dict[int, Cpu], core: frozenset[int], unplaced: set[int]) -> frozenset[int]:
    """The cache of a core that is offline; empty if the caches of its neighbours leave doubts."""
    first = min(core)
    placed = [one for one in cpus.values() if one.cpu not in unplaced]
    node = [one for one in placed if one.node == cpus[first].node]
    caches = {one.cache for one in node}
    if len(caches) == 1:
        return caches.pop()
    below = max((one for one in node if one.cpu < first), key=lambda one: one.cpu, default=None)
    above = min((one for one in node if one.cpu > first), key=lambda one: one.cpu, default=None)
    if below and above and below.cache == above.cache:
        return below.cache
    widest = max(map(len, caches), default=0)
    incomplete = {
        one.cache for one in (below, above) if one and len(one.cache) + len(core) <= widest
    }
    return incomplete.pop() if len(incomplete) == 1 else frozenset()


def _infer_packages(cpus: dict[int, Cpu], unplaced: set[int]) -> None:
    """A NUMA node is in one package, if all of its CPUs whose package is known are."""
    packages = defaultdict(set)
    for cpu, one in cpus.items():
        if cpu not in unplaced:
            packages[one.node].add(one.package)
    for cpu in unplaced:
        if len(packages[cpus[cpu].node]) == 1:
            [package] = packages[cpus[cpu].node]
            cpus[cpu] = replace(cpus[cpu], package=package)
