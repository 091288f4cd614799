"""The simulated kubelet's topology manager: which NUMA node a pod's devices should come from."""

from __future__ import annotations

from collections.abc import Mapping

POLICIES = ("none", "single-numa-node")

# By resource: its free devices with their NUMA nodes, and how many are asked for. A device without
# a node counts as being anywhere.
Wishes = Mapping[str, tuple[Mapping[str, "int | None"], int]]


class TopologyAffinityError(Exception):
    """No NUMA node has all that a pod asks for."""

    def __init__(self) -> None:
        super().__init__("Resources cannot be allocated with Topology locality")


def affinity(policy: str, wishes: Wishes) -> int | None:
    """The NUMA node for a container under a policy of POLICIES; None if any will do.

    Of several nodes that have everything the lowest one is taken, as the kubelet's merging of
    hints does. Raises TopologyAffinityError.
    """
    if policy == "none":
        return None
    nodes = {node for free, _ in wishes.values() for node in free.values() if node is not None}
    if not nodes:
        return None
    for node in sorted(nodes):
        if all(_has(free, node, size) for free, size in wishes.values()):
            return node
    raise TopologyAffinityError


def aligned(free: Mapping[str, int | None], node: int | None) -> frozenset[str]:
    """The devices that lie on a NUMA node; none for no node, nor those that may be anywhere."""
    return frozenset(device for device, own in free.items() if node is not None and own == node)


def _has(free: Mapping[str, int | None], node: int, size: int) -> bool:
    return sum(1 for own in free.values() if own is None or own == node) >= size
