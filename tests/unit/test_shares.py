"""How the CPU limit of a pod is divided among its containers that own no CPUs."""

from __future__ import annotations

import pytest

from isolcpus_dp.nri.notes import Quota
from isolcpus_dp.nri.shares import Claim, divide

NONE = Quota(-1)


@pytest.mark.parametrize(
    ("limit", "claims", "expected"),
    [
        (Quota(10_000), [], []),
        (Quota(10_000), [Claim(NONE, 2)], [Quota(10_000)]),
        (Quota(10_000), [Claim(Quota(3_000), 2), Claim(Quota(7_000), 2)], [3_000, 7_000]),
        (Quota(10_000), [Claim(NONE, 100), Claim(NONE, 300)], [2_500, 7_500]),
        (Quota(10_000), [Claim(NONE, 0), Claim(NONE, 2)], [5_000, 5_000]),
        # What one does not need is for the others.
        (Quota(10_000), [Claim(Quota(1_000), 2), Claim(NONE, 2), Claim(NONE, 1)],
         [1_000, 4_500, 4_500]),
        (Quota(10_000), [Claim(Quota(5_000, 50_000), 2), Claim(NONE, 2)],
         [Quota(2_500, 50_000), 5_000]),
        (Quota(1_000, 50_000), [Claim(NONE, 2)], [Quota(1_000, 50_000)]),
        # Linux accepts no less.
        (Quota(1_000), [Claim(NONE, 2), Claim(NONE, 2)], [1_000, 1_000]),
    ],
    ids=["nobody", "one", "fits", "shares", "no shares", "modest", "periods", "period of pod",
         "smallest"],
)  # fmt: skip
def test_limit_is_divided(limit: Quota, claims: list[Claim], expected: list[Quota | int]) -> None:
    divided = divide(limit, {str(key): claim for key, claim in enumerate(claims)})
    assert [divided[str(key)] for key in range(len(claims))] == [
        Quota(each) if isinstance(each, int) else each for each in expected
    ]
