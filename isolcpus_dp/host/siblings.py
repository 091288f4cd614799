"""Physical cores from what sysfs shows: siblings that agree, and threads that are offline.

The kernel removes an offline CPU's directory `topology`, and the CPU from its siblings' lists. So
the core of a CPU that was offline at every reading is not known; it can only be inferred.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Cpu, Machine

# The threads of a core as distances from the lowest one, and where cores begin: the remainder of
# the lowest thread, if the threads are adjacent CPUs.
_Pattern = tuple[tuple[int, ...], int]


def reconcile(cpus: dict[int, Cpu]) -> frozenset[int]:
    """Makes the siblings of all CPUs consistent: each present CPU is in exactly one core.

    CPUs that name each other become one core. Returns the CPUs of those cores whose online CPUs
    disagree about them, as on a virtual machine with a wrong topology.
    """
    present = frozenset(cpus)
    claims = {cpu.siblings for cpu in cpus.values()}
    covered = frozenset().union(*claims)
    if (
        sum(map(len, claims)) == len(covered)
        and covered == present
        and all(cpu in cpus[cpu].siblings for cpu in cpus)
    ):
        return frozenset()
    conflicting: set[int] = set()
    for core in _joined(cpus):
        claimed = {cpus[cpu].siblings & present for cpu in core if cpus[cpu].placed}
        if claimed and claimed != {core}:
            conflicting |= core
        known = next((cpus[cpu] for cpu in sorted(core) if cpus[cpu].placed), None)
        for cpu in core:
            one = cpus[cpu] if cpus[cpu].placed or known is None else _beside(known, cpus[cpu])
            cpus[cpu] = replace(one, siblings=core)
    return frozenset(conflicting)


def _joined(cpus: dict[int, Cpu]) -> Iterator[frozenset[int]]:
    """The sets of present CPUs that name each other, directly or through others."""
    named = defaultdict(set)
    for cpu, one in cpus.items():
        for sibling in one.siblings & cpus.keys():
            named[cpu].add(sibling)
            named[sibling].add(cpu)
    left = set(cpus)
    while left:
        group, new = set[int](), {min(left)}
        while new:
            group |= new
            new = set().union(*(named[cpu] for cpu in new)) - group
        left -= group
        yield frozenset(group)


def _beside(known: Cpu, offline: Cpu) -> Cpu:
    """An offline CPU that an online sibling names: it has the position of that sibling."""
    return replace(
        offline,
        core=known.core,
        package=known.package,
        die=known.die,
        core_type=offline.core_type or known.core_type,
    )


def switched_off(machine: Machine) -> frozenset[int]:
    """The offline CPUs that cannot come online because SMT is off.

    While SMT is off, the kernel keeps all threads of a core offline but the first one. A CPU whose
    core is known and has no online thread was taken offline by somebody.
    """
    if not machine.smt_off:
        return frozenset()
    return frozenset(
        cpu.cpu
        for cpu in machine.cpus.values()
        if not cpu.online and (not cpu.placed or cpu.siblings & machine.online)
    )


def cores(machine: Machine) -> list[frozenset[int]]:
    """The cores of all CPUs whose core is known, in ascending order.

    Without CPUs that are offline because SMT is off, and with offline CPUs that were never seen
    online but are probably threads of the core.
    """
    known = {cpu.siblings for cpu in machine.cpus.values() if cpu.placed}
    if machine.smt_off:
        off = switched_off(machine)
        known = {core - off for core in known}
    else:
        probable = _probable_threads(machine, known)
        known = {core | probable.get(core, frozenset()) for core in known}
    return sorted(known, key=min)


def late(machine: Machine, before: Machine) -> frozenset[int]:
    """The threads that `cores` has added to a core since an earlier reading."""
    core_of = {cpu: core for core in cores(machine) for cpu in core}
    found = set(before.late)
    for core in cores(before):
        for cpu in core & core_of.keys():
            if before.cpus[cpu].placed:
                found |= core_of[cpu] - core
    return frozenset(found & machine.present)


def _probable_threads(
    machine: Machine, known: Iterable[frozenset[int]]
) -> dict[frozenset[int], frozenset[int]]:
    """By core with fewer threads than others of its kind: offline CPUs that complete it.

    They are where the complete cores have their threads, such as CPU N + 4 for CPU N, and on the
    same NUMA node. If other cores have fewer threads and cannot lack one, such cores are normal on
    this machine, and nothing can be inferred. This is so for the E cores of a hybrid machine whose
    kernel does not list them.
    """
    unplaced = {cpu.cpu for cpu in machine.cpus.values() if not cpu.placed}
    found: dict[frozenset[int], frozenset[int]] = {}
    if not unplaced:
        return found
    kinds = defaultdict(list)
    for core in sorted(known, key=min):
        # What is known about a core that is offline was read when its threads were online.
        if core & machine.online and not core & machine.conflicting:
            kinds[machine.cpus[min(core & machine.online)].core_type].append(core)
    for cores in kinds.values():
        widest = max(map(len, cores))
        patterns = Counter(_pattern(core) for core in cores if len(core) == widest)
        inferred = {
            core: _completion(machine, core, [pattern for pattern, _ in patterns.most_common()])
            for core in cores
            if len(core) < widest
        }
        if all(inferred.values()):
            for core, threads in inferred.items():
                found[core] = threads & unplaced
                unplaced -= threads
    return {core: threads for core, threads in found.items() if threads}


def hidden_cores(machine: Machine, unplaced: Iterable[int]) -> list[frozenset[int]]:
    """The probable cores of which all threads are offline, from these CPUs of unknown core.

    Only if all other cores are of one type and have one pattern.
    """
    known = [core for core in cores(machine) if not core & machine.conflicting]
    types = {cpu.core_type for cpu in machine.cpus.values()}
    patterns = {_pattern(core) for core in known}
    if len(types) != 1 or len({places for places, _ in patterns}) != 1:
        return []
    left, found = set(unplaced), []
    [places] = {places for places, _ in patterns}
    for cpu in sorted(left):
        core = frozenset(cpu + place for place in places)
        if core <= left and _pattern(core) in patterns and _on_one_node(machine, core):
            found.append(core)
            left -= core
    return found


def _on_one_node(machine: Machine, core: Iterable[int]) -> bool:
    return len({machine.cpus[cpu].node for cpu in core}) == 1


def _pattern(core: frozenset[int]) -> _Pattern:
    lowest = min(core)
    places = tuple(cpu - lowest for cpu in sorted(core))
    return places, lowest % len(core) if places[-1] < len(core) else 0


def _completion(
    machine: Machine, core: frozenset[int], patterns: Sequence[_Pattern]
) -> frozenset[int]:
    """The offline CPUs with which the core has one of the patterns; empty if there are none."""
    node = machine.cpus[min(core)].node
    for places, _ in patterns:
        for place in places:
            whole = frozenset(min(core) - place + other for other in places)
            others = [machine.cpus.get(cpu) for cpu in whole - core]
            if (
                core <= whole
                and _pattern(whole) in patterns
                and all(one and not one.placed and one.node == node for one in others)
            ):
                return whole - core
    return frozenset()
