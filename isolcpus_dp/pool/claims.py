"""Claims: which pool has which isolated CPU.

Pools claim in the order of the configuration, [Plugin] last. Once claimed, a CPU stays in its pool
as long as the claims are kept, whatever the machine looks like later. They are kept while the
device plugin runs, until its configuration is read again: a worker tells the main process what was
claimed in its time.

- An offline CPU is claimed like any other: its NUMA node is known, and the rest is inferred where
  possible (`host.probable`). So a restart of the daemon while a CPU is offline changes nothing.
- If the attributes of an offline CPU remain unknown, it is in no pool until it comes online.
- A CPU that was not claimed joins the pool of its core's other threads, so that no core is divided.

The pinning daemon does not need the claims, which it could not know: it may have been started at
another time, when other CPUs were offline. It trusts the device plugin within `allowed`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.host import probable, siblings
from isolcpus_dp.pool import attributes

if TYPE_CHECKING:
    from isolcpus_dp.config import Config, PoolConfig
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.pool.attributes import Near


@dataclass(frozen=True)
class Claims:
    """The pools of the CPUs at one time."""

    resources: Mapping[int, str]  # by claimed CPU: the resource of its pool
    near: Near

    def of(self, pool: PoolConfig) -> frozenset[int]:
        """The CPUs of a pool."""
        return frozenset(
            cpu for cpu, resource in self.resources.items() if resource == pool.resource_name
        )

    def more_than(self, other: Claims) -> dict[int, str]:
        """What is claimed here and not in the other claims."""
        return {cpu: one for cpu, one in self.resources.items() if cpu not in other.resources}

    def with_more(self, resources: Mapping[int, str]) -> Claims:
        """These claims, and those of CPUs that were claimed later."""
        return Claims({**resources, **self.resources}, self.near)

    def includes(self, other: Claims) -> bool:
        """Whether these are the other claims, possibly with more CPUs."""
        return other.resources.items() <= self.resources.items()


def claim(machine: Machine, config: Config, near: Near, earlier: Claims | None = None) -> Claims:
    """The claims of all pools. What is in the `earlier` claims stays as it is there.

    `near` has the locations of all devices that the configuration names.
    """
    resources = dict(earlier.resources) if earlier else {}
    left = (machine.isolated & machine.present) - resources.keys()
    if not left:
        return Claims(resources, near)
    if any(pool.by_attribute for pool in config.pools):
        machine = probable.positions(machine)
    if earlier:
        left = _join_cores(machine, config, resources, left)
    for pool in in_order(config):
        claimed, unknown = _claimed(machine, pool, near, left, resources)
        resources.update(dict.fromkeys(claimed, pool.resource_name))
        left = left - claimed - unknown
    return Claims(resources, near)


def allowed(machine: Machine, config: Config, pool: PoolConfig) -> frozenset[int]:
    """The isolated CPUs that a container of the pool may have, whatever the claims are.

    With CPUs=, these CPUs; otherwise all but those that another pool certainly has.
    """
    if pool.cpus is not None:
        return pool.cpus & machine.isolated
    taken = set[int]()
    for other in in_order(config):
        if other is pool:
            break
        if not other.by_attribute:
            taken |= other.cpus or set()
    return machine.isolated - taken


def in_order(config: Config) -> Iterator[PoolConfig]:
    """The pools in the order in which they claim: [Plugin], the first one, gets what is left."""
    plugin, *pools = config.pools
    yield from pools
    yield plugin


def _join_cores(
    machine: Machine, config: Config, resources: dict[int, str], left: frozenset[int]
) -> frozenset[int]:
    """Adds CPUs to the pool that has the other threads of their core. Returns the others."""
    pools = {pool.resource_name: pool for pool in config.pools}
    joined = set()
    for cpu in sorted(left):
        beside = {resources[one] for one in machine.cpus[cpu].siblings if one in resources}
        listed = {one.resource_name for one in config.pools if cpu in (one.cpus or ())}
        if len(beside) == 1 and listed <= beside:
            [resource] = beside
            if pools[resource].cpus is None or listed:
                resources[cpu] = resource
                joined.add(cpu)
    return left - joined


def _claimed(
    machine: Machine,
    pool: PoolConfig,
    near: Near,
    left: frozenset[int],
    resources: Mapping[int, str],
) -> tuple[frozenset[int], frozenset[int]]:
    """Those of the CPUs that the pool claims, and those that may be its own, but are unknown."""
    candidates = left if pool.cpus is None else left & pool.cpus
    if not pool.by_attribute:
        return candidates, frozenset()
    matching, unknown = attributes.split(machine, pool, near, candidates)
    if pool.count is None:
        return matching, unknown
    # Their core is unknown, and they cannot be used.
    off = matching & siblings.switched_off(machine)
    held = {
        cpu
        for cpu, resource in resources.items()
        if resource == pool.resource_name and cpu in machine.present
    }
    return _counted(machine, pool, matching - off, held), unknown | off


def _counted(
    machine: Machine, pool: PoolConfig, matching: frozenset[int], held: set[int]
) -> frozenset[int]:
    """As many of the CPUs as the pool lacks, chosen by the rule for containers."""
    # The pinning daemon does not need it.
    from isolcpus_dp import placement

    assert pool.count
    groups = defaultdict(set)
    for cpu in matching:
        groups[machine.cpus[cpu].node if pool.count.per_node else None].add(cpu)
    chosen = set[int]()
    for node, cpus in groups.items():
        has = sum(1 for cpu in held if not pool.count.per_node or machine.cpus[cpu].node == node)
        size = min(pool.count.cpus - has, len(cpus))
        if size > 0:
            chosen |= placement.choose(machine, frozenset(cpus), frozenset(), size)
    return frozenset(chosen)
