"""What is said about a pool that lacks CPUs: a sentence for each reason."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, probable, siblings
from isolcpus_dp.pool import attributes
from isolcpus_dp.pool.claims import in_order

if TYPE_CHECKING:
    from isolcpus_dp.config import Config, PoolConfig
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.pool.claims import Claims


def of(machine: Machine, config: Config, pool: PoolConfig, claims: Claims) -> list[str]:
    """A sentence for each group of configured CPUs that is not in the pool."""
    if not machine.isolated:
        return [
            "no CPU of this host is isolated: boot it with isolcpus= on the kernel's command line"
        ]
    if not pool.by_attribute:
        return _of_numbers(machine, config, pool, claims)
    machine = probable.positions(machine)
    return [
        *([] if pool.cpus is None else _not_isolated(machine, pool.cpus)),
        *(
            attributes.unmatched(machine, pool, claims.near)
            or _short(machine, config, pool, claims)
        ),
        *_unknown(machine, config, pool, claims),
    ]


def _of_numbers(machine: Machine, config: Config, pool: PoolConfig, claims: Claims) -> list[str]:
    """The sentences about a pool without attributes."""
    wanted = pool.cpus
    if wanted is None:
        others = claims.resources.keys() - claims.of(pool)
        wanted = machine.isolated.difference(others, *(one.cpus or () for one in config.pools))
    found = []
    if not wanted:
        found.append(
            f"no CPU is left for {pool.resource_name}: all isolated CPUs are in [Pool] sections"
        )
    found += _not_isolated(machine, wanted)
    absent = wanted & machine.isolated - machine.present
    if absent:
        found.append(f"CPU {cpulist.render(absent)} is isolated but not present and is not offered")
    return found + _claimed_before(config, pool, claims, wanted)


def _not_isolated(machine: Machine, cpus: frozenset[int]) -> list[str]:
    others = cpus - machine.isolated
    if not others:
        return []
    return [
        f"CPU {cpulist.render(others)} of CPUs= is not isolated and is not offered:"
        f" isolated CPUs are {cpulist.render(machine.isolated)}"
    ]


def _claimed_before(
    config: Config, pool: PoolConfig, claims: Claims, wanted: frozenset[int]
) -> list[str]:
    """A sentence for each pool that has some of the `wanted` CPUs."""
    found = []
    for other in config.pools:
        taken = wanted & claims.of(other)
        if taken and other is not pool:
            found.append(
                f"CPU {cpulist.render(taken)} of CPUs= is in [{other.section}], which claims"
                f" CPUs before [{pool.section}]"
            )
    return found


def _short(machine: Machine, config: Config, pool: PoolConfig, claims: Claims) -> list[str]:
    """The sentences if fewer CPUs are left than the pool should have."""
    candidates = machine.isolated & machine.present
    if pool.cpus is not None:
        candidates &= pool.cpus
    matching, _ = attributes.split(machine, pool, claims.near, candidates)
    mine = claims.of(pool)
    before = itertools.takewhile(lambda other: other is not pool, in_order(config))
    where = [
        f"{len(taken)} in [{other.section}]"
        for other in before
        if (taken := matching & claims.of(other))
    ]
    elsewhere = f"; of those that match, {' and '.join(where)}" if where else ""
    text = attributes.selection(pool)
    if not mine:
        return [f"no CPU is left for {pool.resource_name} with {text}{elsewhere}"]
    if pool.count is None:
        return []
    if not pool.count.per_node:
        if len(mine) >= pool.count.cpus:
            return []
        return [f"{text}: only {_cpus(len(mine))} left{elsewhere}"]
    # Nodes whose matching CPUs are all in earlier pools count, too; others have no part in it.
    counts = Counter(attributes.node(machine, machine.cpus[cpu]) for cpu in mine & machine.present)
    nodes = {attributes.node(machine, machine.cpus[cpu]) for cpu in matching}
    return [
        f"{text}: only {_cpus(counts[node])} left on NUMA node {node}{elsewhere}"
        for node in sorted(nodes, key=str)
        if counts[node] < pool.count.cpus
    ]


def _cpus(count: int) -> str:
    return "1 CPU is" if count == 1 else f"{count} CPUs are"


def _unknown(machine: Machine, config: Config, pool: PoolConfig, claims: Claims) -> list[str]:
    """The sentences about CPUs that are in no pool because it is unknown whether they match.

    Of several pools that they may belong to, only the first one has them.
    """
    left = (machine.isolated & machine.present) - claims.resources.keys()
    for other in in_order(config):
        if not other.by_attribute:
            continue
        matching, unknown = attributes.split(
            machine, other, claims.near, left if other.cpus is None else left & other.cpus
        )
        off = matching & siblings.switched_off(machine) if other.count else frozenset[int]()
        if other is pool:
            break
        left -= unknown | off
    found = []
    if off:
        found.append(
            f"CPU {cpulist.render(off)} is offline because SMT is off, and in no pool until it"
            " comes online"
        )
    if unknown:
        found.append(
            f"CPU {cpulist.render(unknown)} is offline and in no pool until it comes online:"
            f" whether it has {attributes.selection(pool)} is unknown"
        )
    return found
