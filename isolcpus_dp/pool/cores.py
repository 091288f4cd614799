"""The devices of a pool with Granularity=core: physical cores, and those that are not offered.

What a core can lack:

- A thread that is not in the pool and online disturbs the owner: the core is offered only with
  IncompleteCores=offer, without this thread. While the thread is offline, it disturbs nobody.
- A thread of the pool that is offline: if a container would get it, the device is unhealthy. With
  IncompleteCores=offer, containers get the other threads. But the device is named after its lowest
  CPU, and is unhealthy while this one is offline: no other CPU is ever allocated by its number.

The number of a device does not change when a lower thread of the core becomes known later: a
container may own CPUs by the old one. If the threads were separate devices before, the core is
unhealthy.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, siblings
from isolcpus_dp.pool.device import Device, is_offline

if TYPE_CHECKING:
    from isolcpus_dp.config import PoolConfig
    from isolcpus_dp.host.machine import Machine


def devices(
    machine: Machine, config: PoolConfig, offered: frozenset[int]
) -> tuple[list[Device], list[str]]:
    """The devices of the `offered` CPUs, and a sentence for each core that is not a device."""
    made, warnings = [], []
    placed = frozenset(cpu for cpu in offered if machine.cpus[cpu].placed)
    known = [core for core in siblings.cores(machine) if core & placed]
    for core in known:
        if core & machine.conflicting:
            warnings.append(
                f"CPU {cpulist.render(core & offered)} is not offered: sysfs contradicts itself"
                f" about the core of CPU {cpulist.render(core)}"
            )
        elif config.incomplete_cores == "withhold" and (core - offered) & machine.online:
            warnings.append(_broken(machine, core, offered))
        else:
            device = _device(machine, config, core & offered)
            if core <= machine.late:
                device = replace(device, reason=_were_separate(core))
            elif int(device.id) != min(device.core):
                warnings.append(_renamed(device))
            made.append(device)
    off = siblings.switched_off(machine)
    unknown = offered.difference(off, *known)
    if unknown:
        warnings.append(
            f"CPU {cpulist.render(unknown)} is offline and not offered: its core is unknown until"
            " it comes online"
        )
    return made, warnings


def _device(machine: Machine, config: PoolConfig, core: frozenset[int]) -> Device:
    """The device of the threads of a core that are in the pool."""
    first = min(core - machine.late or core)
    required = frozenset({first})
    cpus = core
    if config.threads == "one":
        cpus = required
    elif config.incomplete_cores == "withhold":
        required = core
    elif first in machine.online:
        cpus = core & machine.online
    return Device(
        id=str(first),
        cpus=cpus,
        core=core,
        node=machine.cpus[first].node,
        reason=_reason(machine, required - machine.online),
    )


def _reason(machine: Machine, offline: frozenset[int]) -> str:
    """Why a device is unhealthy; empty if it is not."""
    known = frozenset(cpu for cpu in offline if machine.cpus[cpu].placed)
    sentences = [is_offline(known)] if known else []
    if offline - known:
        sentences.append(f"{is_offline(offline - known)} and probably a thread of this core")
    return "; ".join(sentences)


def _were_separate(core: frozenset[int]) -> str:
    """Why a core is unhealthy whose threads were known one by one, as separate devices."""
    return (
        f"CPU {cpulist.render(core)} were separate devices until they were online together: delete"
        " the pods that have them, then restart the daemon"
    )


def _renamed(device: Device) -> str:
    """What the operator must know about a device with another id than after a restart."""
    return (
        f"core {cpulist.render(device.core)} has the device id {device.id} until the daemon is"
        f" restarted, because CPU {min(device.core)} became known later; delete the pod that has"
        f" device {device.id} before the restart"
    )


def _broken(machine: Machine, core: frozenset[int], offered: frozenset[int]) -> str:
    """The reason why a core is not offered, as a sentence."""
    others = (core - offered) & machine.online
    housekeeping = others - machine.isolated
    reasons = []
    if housekeeping:
        reasons.append(f"CPU {cpulist.render(housekeeping)} is not isolated")
    if others - housekeeping:
        reasons.append(f"CPU {cpulist.render(others - housekeeping)} is not in this pool")
    return f"core {cpulist.render(core)} is not offered as a whole: {' and '.join(reasons)}"
