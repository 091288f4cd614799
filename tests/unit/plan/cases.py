"""The twelve machines before CPUs were isolated, each with what a plan needs to know about it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace

from isolcpus_dp.host.machine import Machine
from isolcpus_dp.plan import survey
from isolcpus_dp.plan.part import Target
from isolcpus_dp.plan.survey import Known
from isolcpus_dp.plan.wish import Wish
from tests.unit import machines

DEBIAN = Target("debian", (6, 1), tuned=False)
EL = Target("el", (5, 14), tuned=False)

# Machines with a wish of their own, or another distribution.
_WISHES = {name: Wish(core_type="performance") for name in ("hybrid 8P+16E", "big.LITTLE")}
_TARGETS = {"2048 CPUs": EL}


@dataclass(frozen=True)
class Case:
    """A machine and a wish."""

    machine: Machine
    known: Known
    wish: Wish = field(default_factory=Wish)


@functools.cache
def case_of(name: str) -> Case:
    """The case of a machine of machines.MACHINES."""
    machine = replace(machines.read(name), isolated=frozenset())
    known = survey.of_machine(machine, None, machines.nodes(name))
    known = replace(known, target=_TARGETS.get(name, DEBIAN))
    return Case(machine, known, _WISHES.get(name, Wish()))
