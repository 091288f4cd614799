"""Which CPUs are measured, and which are left out or only watched. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.measure.request import Refused, RequestError
from isolcpus_dp.measure.result import Dropped

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine


@dataclass(frozen=True)
class Selection:
    """The CPUs of one measurement."""

    measured: frozenset[int]
    watched: frozenset[int]  # owned CPUs, on which no loop runs
    own: frozenset[int]  # housekeeping CPUs on which the command itself may run
    isolated: frozenset[int]
    left_out: tuple[Dropped, ...] = ()  # free CPUs that are not measured
    owners: Mapping[int, str] = field(default_factory=dict)  # by owned CPU that was asked for


def select(
    machine: Machine,
    owners: Mapping[int, str],
    listed: str | None = None,
    *,
    watch_owned: bool = False,
) -> Selection:
    """The CPUs of a list, or all isolated ones that no container owns.

    `owners` has the owner of each owned CPU. Raises RequestError for a list that can never be
    measured, and Refused for one with owned CPUs, and if no CPU is free.
    """
    isolated = machine.isolated & machine.online
    wanted = isolated if listed is None else _parsed(listed, machine)
    owned = {cpu: owners[cpu] for cpu in sorted(wanted) if cpu in owners}
    beside = {
        cpu: sibling
        for cpu in sorted(wanted - owned.keys())
        for sibling in sorted(siblings(machine, cpu) & owners.keys())[:1]
    }
    if listed is not None:
        _refuse_owned({} if watch_owned else owned, beside, owners)
    measured = wanted - owned.keys() - beside.keys()
    watched = frozenset(owned) if watch_owned else frozenset[int]()
    if not measured and not watched:
        raise Refused(_nothing(machine, owned, beside))
    own = machine.online - machine.isolated - measured
    if not own:
        raise RequestError(
            f"no housekeeping CPU is left for the command itself if CPU {cpulist.render(measured)}"
            " is measured: leave one out"
        )
    left_out = tuple(
        Dropped(cpu, beside_owner(sibling, owners[sibling])) for cpu, sibling in beside.items()
    )
    return Selection(measured, watched, own, isolated, left_out, owned)


def siblings(machine: Machine, cpu: int) -> frozenset[int]:
    """The other threads of a CPU's core."""
    known = machine.cpus.get(cpu)
    return known.siblings - {cpu} if known else frozenset()


def beside_owner(sibling: int, owner: str) -> str:
    """Why a CPU is not measured whose sibling is owned."""
    return f"its SMT sibling, CPU {sibling}, is owned by {owner}, whom a busy loop would slow down"


def main_cpu(machine: Machine, selection: Selection) -> int:
    """The CPU for all that the measurement does beside the loops: on a core without one."""
    quiet = [cpu for cpu in selection.own if not siblings(machine, cpu) & selection.measured]
    return min(quiet or selection.own)


def _parsed(listed: str, machine: Machine) -> frozenset[int]:
    """Raises RequestError."""
    try:
        wanted = cpulist.parse_configured(listed, machine.last)
    except cpulist.CpuListError as error:
        raise RequestError(f"--cpus: {error}") from error
    if not wanted:
        raise RequestError("--cpus names no CPU: give a list such as 2-3,6")
    if offline := wanted - machine.online:
        raise RequestError(
            f"--cpus: CPU {cpulist.render(offline)} is not online; the online CPUs are"
            f" {cpulist.render(machine.online)}"
        )
    return wanted


def _refuse_owned(
    owned: Mapping[int, str], beside: Mapping[int, int], owners: Mapping[int, str]
) -> None:
    """Raises Refused for the first CPU of a list that must not be measured."""
    for cpu, owner in owned.items():
        raise Refused(
            f"CPU {cpu} is owned by {owner}: leave it out, or watch it with --watch-owned"
        )
    for cpu, sibling in beside.items():
        raise Refused(f"CPU {cpu}: {beside_owner(sibling, owners[sibling])}: leave it out")


def _nothing(machine: Machine, owned: Mapping[int, str], beside: Mapping[int, int]) -> str:
    if not machine.isolated:
        return (
            "no CPU is isolated: boot with isolcpus=, see isolcpus-dp plan, or name CPUs in --cpus"
        )
    if not owned and not beside:
        return (
            f"no isolated CPU is online: {cpulist.render(machine.isolated)} are isolated,"
            f" {cpulist.render(machine.online)} are online"
        )
    reasons = [f"containers own CPU {cpulist.render(owned)}"] if owned else []
    if beside:
        reasons.append(f"CPU {cpulist.render(beside)} shares a core with an owned CPU")
    return (
        f"no isolated CPU is free: {' and '.join(reasons)}; wait until a pod has ended, or watch"
        " owned CPUs with --watch-owned"
    )
