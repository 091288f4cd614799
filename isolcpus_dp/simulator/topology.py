"""The simulated kubelet's topology manager: selects the NUMA node for a pod's devices."""

from __future__ import annotations

from collections.abc import Mapping

POLICIES = ("none", "single-numa-node")

# By resource: its free devices with their NUMA nodes, and the requested number. A device without a
# node fits every node.
Wishes = Mapping[str, tuple[Mapping[str, "int | None"], int]]


class TopologyAffinityError(Exception):
    """No NUMA node has enough free devices for a pod."""

    def __init__(self) -> None:
        super().__init__("Resources cannot be allocated with Topology locality")


def affinity(policy: str, wishes: Wishes) -> int | None:
    """The NUMA node for a container under a policy of POLICIES; None if any node is allowed.

    Of several suitable nodes it is the lowest one, as when the kubelet merges hints. Raises
    TopologyAffinityError.
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
    """The devices on a NUMA node, without those that have no node; empty if `node` is None."""
    return frozenset(device for device, own in free.items() if node is not None and own == node)


def _has(free: Mapping[str, int | None], node: int, size: int) -> bool:
    return sum(1 for own in free.values() if own is None or own == node) >= size
