"""The table of rules is complete and consistent."""

from __future__ import annotations

from collections.abc import Iterator

from isolcpus_dp.measure.cause.cause import Kind
from isolcpus_dp.measure.cause.role import RULES, SHORT, Role


def test_every_role_has_a_rule_and_a_kind() -> None:
    assert set(RULES) == set(Role)
    kinds = {rule.kind for rule in RULES.values()}
    assert kinds == set(Kind) - {Kind.NONE, Kind.FREQUENCY}


def cycles(start: Role, role: Role, factor: float, passed: frozenset[Role]) -> Iterator[float]:
    """How many events of a role follow from one of the same role, for each way through others."""
    for follower, times in RULES[role].brings.items():
        if follower is start:
            yield factor * times
        elif follower not in passed:
            yield from cycles(start, follower, factor * times, passed | {follower})


def test_two_roles_cannot_explain_each_other() -> None:
    found = [factor for role in Role for factor in cycles(role, role, 1, frozenset())]
    assert found != []
    assert max(found) < 1


def test_roles_that_do_not_take_long_come_last() -> None:
    assert set(list(RULES)[-len(SHORT) :]) == SHORT
