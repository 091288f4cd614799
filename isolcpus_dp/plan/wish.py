"""Applies a wish to a machine: which CPUs are isolated, and which stay for all else.

Whole cores always: a list that cuts a core is refused. To complete it would isolate CPUs that
nobody named; the message has the completed list, so that it can be given instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, siblings
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.plan.part import Goal

if TYPE_CHECKING:
    from isolcpus_dp.host.core_types import CoreType
    from isolcpus_dp.host.machine import Machine

Core = frozenset[int]

# The kernel starts on CPU 0, and never stops its timer tick (tick_nohz_init()).
_BOOT_CPU = 0


class WishError(Exception):
    """The machine cannot fulfil the wish; one sentence."""


@dataclass(frozen=True)
class Wish:
    """Either `isolate`, or the other two."""

    housekeeping: int | None = None  # cores of each NUMA node that stay; None: 1
    isolate: str | None = None  # a CPU list as on the kernel's command line
    core_type: CoreType | None = None  # isolate only cores of this type


def apply(machine: Machine, wish: Wish) -> tuple[Goal, tuple[str, ...]]:
    """The goal, and what the administrator should know about it. Raises WishError."""
    cores, unknown = _cores(machine)
    if wish.isolate is not None:
        isolated = _listed(machine, wish, cores)
    else:
        isolated = _all_but(machine, wish, cores)
    if not isolated:
        raise WishError(_nothing_left(wish, cores))
    goal = Goal(machine, isolated, machine.present - isolated)
    return goal, tuple(_notes(goal, unknown - isolated))


def _cores(machine: Machine) -> tuple[list[Core], frozenset[int]]:
    """All cores, each present CPU in exactly one; and the CPUs whose core is not known.

    The kernel hides the core of an offline CPU. It is inferred from the numbers of other CPUs where
    these leave no doubt, but not while SMT is off: then no core shows its threads.
    """
    known = siblings.cores(machine)
    if machine.smt_off:
        known = sorted({cpu.siblings for cpu in machine.cpus.values() if cpu.placed}, key=min)
    unknown = machine.present.difference(*known)
    return [*known, *(frozenset({cpu}) for cpu in sorted(unknown))], unknown


def _listed(machine: Machine, wish: Wish, cores: Iterable[Core]) -> frozenset[int]:
    """The CPUs of the list. Raises WishError."""
    text = wish.isolate or ""
    if wish.housekeeping is not None or wish.core_type is not None:
        other = "--housekeeping" if wish.housekeeping is not None else "--isolate-type"
        raise WishError(f"--isolate names the isolated CPUs: leave out {other}")
    try:
        listed = cpulist.parse_configured(text, machine.last)
    except cpulist.CpuListError as error:
        raise WishError(f"--isolate {text}: {error}") from error
    if not listed:
        raise WishError("--isolate names no CPU: use a list such as 2-3,6-7")
    if listed - machine.present:
        raise WishError(
            f"--isolate {text}: CPU {render(listed - machine.present)} is not present; present are"
            f" {render(machine.present)}"
        )
    cut = [core for core in cores if core & listed and core - listed]
    boot = next(core for core in cores if _BOOT_CPU in core or min(machine.present) in core)
    if listed & boot:
        raise WishError(
            f"--isolate {text}: CPU {render(boot)} is the core on which the kernel starts, which"
            " cannot be isolated"
        )
    if cut:
        raise WishError(
            f"--isolate {text} cuts core {render(cut[0])}, and a CPU cannot be quiet while its"
            f" sibling works: use --isolate {render(listed.union(*cut))}"
        )
    return listed


def _all_but(machine: Machine, wish: Wish, cores: Iterable[Core]) -> frozenset[int]:
    """The CPUs of all cores but those that stay. Raises WishError."""
    efficient = frozenset(cpu.cpu for cpu in machine.cpus.values() if cpu.core_type == "efficient")
    if wish.core_type and not efficient:
        raise WishError(
            f"--isolate-type {wish.core_type}: this machine has only one type of cores; leave it"
            " out"
        )
    online = [core for core in cores if core & machine.online]
    wanted = [core for core in online if _has_type(core, wish.core_type, efficient)]
    count = 1 if wish.housekeeping is None else wish.housekeeping
    by_node = defaultdict(list)
    for core in online:
        # The lowest online CPU decides; a core that spans nodes exists only on faulty machines.
        by_node[machine.cpus[min(core & machine.online)].node].append(core)
    isolated = frozenset[int]()
    for of_node in by_node.values():
        # Those that must stay come first: the boot CPU's, and cores of the other type.
        of_node.sort(key=lambda core: (_BOOT_CPU not in core, core in wanted, min(core)))
        isolated = isolated.union(*(core for core in of_node[count:] if core in wanted))
    return isolated


def _has_type(core: Core, core_type: CoreType | None, efficient: frozenset[int]) -> bool:
    if core_type is None:
        return True
    return bool(core & efficient) == (core_type == "efficient")


def _nothing_left(wish: Wish, cores: Iterable[Core]) -> str:
    count = wish.housekeeping or 1
    kind = f" of the type {wish.core_type}" if wish.core_type else ""
    return (
        f"--housekeeping {count} leaves no core{kind} to isolate: the machine has"
        f" {len(list(cores))} cores; use a smaller number, or --isolate LIST"
    )


def _notes(goal: Goal, unknown: frozenset[int]) -> Iterable[str]:
    machine = goal.machine
    if unknown and machine.smt_off:
        yield (
            f"SMT is off: CPU {render(unknown)} is offline and not isolated; before SMT is switched"
            " on, make the plan again on the host with SMT on"
        )
    elif unknown:
        yield (
            f"CPU {render(unknown)} is offline, its core is not known, and it is not isolated: if"
            " it is to be isolated, bring it online and make the plan again"
        )
    conflicting = machine.conflicting & goal.isolated
    if conflicting:
        yield (
            f"sysfs contradicts itself about the cores of CPU {render(conflicting)}: if this is a"
            " virtual machine, correct its topology"
        )
