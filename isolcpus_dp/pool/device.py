"""A device: what the kubelet allocates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from isolcpus_dp.host import cpulist


@dataclass(frozen=True)
class Device:
    """What the kubelet allocates: an isolated CPU, or an isolated physical core."""

    id: str  # a CPU number in decimal: the lowest of those that were known first
    cpus: frozenset[int]  # what the container gets
    core: frozenset[int]  # what no other container gets: more than `cpus` with Threads=one
    node: int | None
    reason: str = ""  # why it is unhealthy, a sentence; empty if it is healthy

    @property
    def healthy(self) -> bool:
        """Whether the kubelet may allocate it."""
        return not self.reason


def is_offline(cpus: Iterable[int]) -> str:
    """The sentence about CPUs that are offline."""
    return f"CPU {cpulist.render(cpus)} is offline"
