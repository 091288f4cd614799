"""Divides the CPU limit of a pod among its containers that own no CPUs.

While the quota of the pod's cgroup is lifted, only the quotas of these containers can hold it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from isolcpus_dp.nri.notes import SMALLEST, Quota

# What the kubelet sets for a container without a CPU request.
_FEWEST_SHARES = 2


class Claim(NamedTuple):
    """What the kubelet set for a container: its quota, and its CPU shares."""

    quota: Quota
    shares: int


def divide(limit: Quota, claims: Mapping[str, Claim]) -> dict[str, Quota]:
    """The quota of each container, so that together they stay within `limit`.

    Nobody gets more than its own quota. What is left is divided in proportion to the CPU shares.
    If all quotas fit together, they are unchanged. No quota is smaller than Linux accepts.
    """
    quotas: dict[str, Quota] = {}
    left = limit.cpus
    undecided = dict(claims)
    while undecided:
        weight = sum(_weight(claim) for claim in undecided.values())
        per_share = max(0.0, left) / weight
        modest = [
            key
            for key, (quota, _) in undecided.items()
            if 0 < quota.cpus <= per_share * _weight(undecided[key])
        ]
        if not modest:
            for key, claim in undecided.items():
                period = claim.quota.period if claim.quota.time > 0 else limit.period
                time = round(per_share * _weight(claim) * period, 3)  # 0.1 + 0.2 is not 0.3
                quotas[key] = Quota(max(SMALLEST, int(time)), period)
            break
        for key in modest:
            quotas[key] = undecided.pop(key).quota
            left -= quotas[key].cpus
    return quotas


def _weight(claim: Claim) -> int:
    return max(_FEWEST_SHARES, claim.shares)
