"""Decides on which CPUs a container may run.

Keeps no state: a decision depends only on the machine, the configuration and the container's own
annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isolcpus_dp import pool
from isolcpus_dp.host import cpulist

if TYPE_CHECKING:
    from isolcpus_dp.config import Config, PinningConfig
    from isolcpus_dp.host.machine import Machine

NONE: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Owned:
    """The CPUs of one resource, which a container's annotation may name."""

    cpus: frozenset[int]
    mixed: bool


@dataclass(frozen=True)
class Rules:
    """What follows from machine and configuration, the same for all containers."""

    pools: Mapping[str, Owned]  # by resource name, which is also the name of the annotation
    isolated: frozenset[int]
    housekeeping: frozenset[int]  # for containers that own no CPUs
    nameable: frozenset[int]  # CPUs that a cpuset may name
    online: frozenset[int]  # the nameable CPUs that are online
    nodes: Mapping[int, int | None]  # by CPU; None if the node has no memory or is unknown
    pinning: PinningConfig


@dataclass(frozen=True)
class Decision:
    """What to set for a container; None leaves a value unchanged."""

    cpus: frozenset[int] | None
    mems: frozenset[int] | None = None  # NUMA nodes
    unlimited: bool = False  # lift its CPU quota and that of its pod
    owned: frozenset[int] = NONE  # the isolated CPUs among `cpus`
    complaints: tuple[str, ...] = ()  # why it does not get the CPUs that its annotations name
    refusal: str = ""  # why no CPU is left on which it may run


def rules(
    machine: Machine, config: Config, nameable: frozenset[int], with_memory: frozenset[int]
) -> Rules:
    """The rules for a machine; `nameable` are the CPUs that a cpuset may name.

    The kernel itself returns an offline CPU that a cpuset names when it comes online. Of the NUMA
    nodes, a cpuset names only those `with_memory`.
    """
    isolated = machine.isolated & machine.present
    return Rules(
        pools={
            one.resource_name: Owned(pool.allowed(machine, config, one) & isolated, one.mixed)
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
    """The decision about a container with these annotations; those of its pod must not be passed.

    `cpuset` is the CPU list that it would have without pinning; empty for all CPUs.
    """
    owned, mixed, complaints = NONE, False, []
    for resource, pool_of_resource in rules.pools.items():
        if resource in annotations:
            try:
                owned |= _named(rules, pool_of_resource, annotations[resource])
                mixed |= pool_of_resource.mixed
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
    """The decision about a container for which decide() failed."""
    return _housekeeping(rules, ())


def returned(rules: Rules, decision: Decision, cpuset: str) -> Decision:
    """The decision to leave a container alone, if `cpuset` is not what it has now: it gets that.

    An empty `cpuset` means all CPUs. They are named, because an update cannot remove a cpuset.
    """
    cpus = (cpulist.parse(cpuset) if cpuset else rules.nameable) & rules.nameable
    return replace(decision, cpus=cpus or None)


def lack_of_housekeeping(rules: Rules) -> str:
    """A sentence if no CPU is left for containers that own none; empty if there is one."""
    if rules.housekeeping:
        return ""
    alternative = ", or set KeepOthersOff=no" if rules.pinning.keep_others_off else ""
    return (
        "no housekeeping CPU is left for containers that own none: all CPUs that they could use,"
        f" {cpulist.render(rules.nameable) or '(none)'}, are isolated; isolate fewer CPUs"
        f"{alternative}"
    )


def _named(rules: Rules, owned: Owned, text: str) -> frozenset[int]:
    """The online CPUs that an annotation names. Raises ValueError if it is not valid."""
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
    """The decision about a container that owns no CPUs."""
    if not rules.isolated or not (rules.pinning.keep_others_off or complaints):
        return Decision(cpus=None, complaints=tuple(complaints))
    if not cpuset:
        return _housekeeping(rules, complaints)
    before = cpulist.parse(cpuset)
    cpus = before - rules.isolated
    if not cpus:
        # For an invalid annotation, its own complaint is enough; so is the refusal.
        if not complaints and rules.housekeeping:
            complaints.append(
                f"all of its CPUs {cpuset} are isolated, so it runs on the housekeeping CPUs: add"
                " the isolated CPUs to the kubelet's reservedSystemCPUs"
            )
        return _housekeeping(rules, complaints)
    return Decision(cpus=cpus if cpus != before else None, complaints=tuple(complaints))


def _housekeeping(rules: Rules, complaints: Iterable[str]) -> Decision:
    """The decision about a container that may only run on the housekeeping CPUs.

    An empty cpuset would not keep it off the isolated CPUs: to a runtime it means no change.
    """
    return Decision(
        cpus=rules.housekeeping or None,
        complaints=tuple(complaints),
        refusal=lack_of_housekeeping(rules),
    )
