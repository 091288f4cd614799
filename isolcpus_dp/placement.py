"""Which CPUs of a pool a container should get: plain functions over a Machine.

SMT siblings stay together, and the CPUs lie on as few NUMA nodes as they can.
"""

from __future__ import annotations

from collections import defaultdict

from isolcpus_dp.machine import Machine


def choose(
    machine: Machine, available: frozenset[int], must_include: frozenset[int], size: int
) -> frozenset[int]:
    """`size` CPUs of `available`, all of `must_include` among them.

    Expects must_include within available and len(must_include) <= size <= len(available).
    """
    chosen = must_include
    while len(chosen) < size:
        chosen |= _from_next_node(machine, available - chosen, chosen, size - len(chosen))
    return chosen


def _from_next_node(
    machine: Machine, free: frozenset[int], chosen: frozenset[int], missing: int
) -> frozenset[int]:
    """Up to `missing` CPUs of the NUMA node that the container should use next."""
    nodes = defaultdict(set)
    for cpu in sorted(free):
        nodes[machine.cpus[cpu].node].add(cpu)
    touched = {machine.cpus[cpu].node for cpu in chosen}

    def order(node: int | None) -> tuple[bool, bool, int]:
        # A node the container is on anyway comes first; then, of those that hold all that is
        # missing, the one with the least left over, so that big holes stay whole; then the largest.
        fits = len(nodes[node]) >= missing
        return node not in touched, not fits, len(nodes[node]) if fits else -len(nodes[node])

    return _by_core(machine, nodes[min(nodes, key=order)], chosen, missing)


def _by_core(
    machine: Machine, free: set[int], chosen: frozenset[int], missing: int
) -> frozenset[int]:
    """Up to `missing` of the `free` CPUs, breaking as few cores as greed can."""
    cores = {machine.cpus[cpu].siblings & free for cpu in free}
    taken: frozenset[int] = frozenset()

    def order(core: frozenset[int]) -> tuple[bool, int, int]:
        # Siblings of what the container has already come first, then whole cores.
        joins = bool(machine.cpus[min(core)].siblings & chosen)
        return not joins, -len(core), min(core)

    for core in sorted(cores, key=order):
        if len(taken) + len(core) <= missing:
            taken |= core
    # A thread whose sibling is gone already goes before a whole core is broken.
    for core in sorted(
        (core for core in cores if not core & taken), key=lambda core: (len(core), min(core))
    ):
        taken |= frozenset(sorted(core)[: missing - len(taken)])
    return taken
