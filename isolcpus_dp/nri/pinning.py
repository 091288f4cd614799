"""On which CPUs a container may run: the decision, as a plain function.

It keeps no state. What the machine is, what the administrator said and what the container's own
annotations say make the answer, each time anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp import pool
from isolcpus_dp.host import cpulist

if TYPE_CHECKING:
    from isolcpus_dp.config import Config, PinningConfig
    from isolcpus_dp.host.machine import Machine

NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Owned:
    """The CPUs of one resource, which its annotation may name."""

    cpus: frozenset[int]
    mixed: bool


@dataclass(frozen=True)
class Rules:
    """What machine and configuration say, worked out once for all containers."""

    pools: Mapping[str, Owned]  # by resource name, which is the annotation's name, too
    isolated: frozenset[int]
    housekeeping: frozenset[int]  # where everybody may run who owns nothing
    nameable: frozenset[int]  # by a cpuset
    online: frozenset[int]  # and nameable
    nodes: Mapping[int, int | None]  # of every CPU; None if it has no memory, or is not known
    pinning: PinningConfig


@dataclass(frozen=True)
class Decision:
    """What is to become of a container; None leaves it as it is."""

    cpus: frozenset[int] | None
    mems: frozenset[int] | None = None  # NUMA nodes
    unlimited: bool = False  # no CPU quota, neither its own nor its pod's
    owned: frozenset[int] = NONE  # the isolated CPUs among `cpus`
    complaints: tuple[str, ...] = ()  # why it did not get what its annotations name


def rules(
    machine: Machine, config: Config, nameable: frozenset[int], with_memory: frozenset[int]
) -> Rules:
    """The rules for a machine as it is now; `nameable` are the CPUs that a cpuset may name.

    An offline CPU among them comes back to the containers that may use it by itself. Of NUMA
    nodes a cpuset names only those `with_memory`.
    """
    isolated = machine.isolated & machine.present
    return Rules(
        pools={
            one.resource_name: Owned(pool.wanted(machine, config, one) & isolated, one.mixed)
            for one in config.pools
        },
        isolated=isolated,
        housekeeping=nameable - isolated,
        nameable=nameable,
        online=machine.online & nameable,
        nodes={
            cpu.cpu: cpu.node if cpu.node in with_memory else None for cpu in machine.cpus.values()
        },
        pinning=config.pinning,
    )


def decide(rules: Rules, annotations: Mapping[str, str], cpuset: str) -> Decision:
    """Where a container may run that has these annotations of its own, not of its pod.

    `cpuset` is the CPU list that it would have without us, empty for all CPUs.
    """
    owned, mixed, complaints = NONE, False, []
    for resource, pool_ in rules.pools.items():
        if resource in annotations:
            try:
                owned |= _named(rules, pool_, annotations[resource])
                mixed |= pool_.mixed
            except ValueError as error:
                complaints.append(f"annotation {resource}: {annotations[resource]}: {error}")
    if not owned:
        return _off(rules, cpuset, complaints)
    nodes = {rules.nodes[cpu] for cpu in owned}
    local = rules.pinning.memory_nodes == "local" and None not in nodes
    return Decision(
        cpus=owned | rules.housekeeping if mixed else owned,
        mems=frozenset(node for node in nodes if node is not None) if local else None,
        unlimited=rules.pinning.cpu_quota == "unlimited",
        owned=owned,
        complaints=tuple(complaints),
    )


def off_the_isolated(rules: Rules) -> Decision:
    """The safe choice for whoever cannot be decided about."""
    return Decision(cpus=rules.housekeeping)


def _named(rules: Rules, owned: Owned, text: str) -> frozenset[int]:
    """The CPUs that an annotation names. Raises ValueError."""
    cpus = cpulist.parse(text)
    if not cpus:
        raise ValueError("it names no CPU")
    if not cpus <= owned.cpus:
        raise ValueError(
            f"CPU {cpulist.render(cpus - owned.cpus)} is not in the pool,"
            f" which is {cpulist.render(owned.cpus) or 'empty'}"
        )
    if not cpus & rules.online:
        raise ValueError("none of them is online")
    return cpus & rules.online


def _off(rules: Rules, cpuset: str, complaints: list[str]) -> Decision:
    """A container that owns nothing."""
    if not rules.isolated or not (rules.pinning.keep_others_off or complaints):
        return Decision(cpus=None, complaints=tuple(complaints))
    if not cpuset:
        return Decision(cpus=rules.housekeeping, complaints=tuple(complaints))
    before = cpulist.parse(cpuset)
    cpus = before - rules.isolated
    if not cpus:
        # An owner that cannot have what its annotation names has been told why.
        if not complaints:
            complaints.append(
                f"all of its CPUs {cpuset} are isolated, so it runs on the housekeeping CPUs: add"
                " the isolated CPUs to the kubelet's reservedSystemCPUs"
            )
        cpus = rules.housekeeping
    return Decision(cpus=cpus if cpus != before else None, complaints=tuple(complaints))
