"""From the options of `isolcpus-dp plan` to a plan: reads what is known, and applies the wish."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp import config
from isolcpus_dp.host import machine as host_machine
from isolcpus_dp.plan import parts, survey, wish
from isolcpus_dp.report.check.start import facts

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.plan.parts import Plan
    from isolcpus_dp.plan.wish import Wish


@dataclass(frozen=True)
class Source:
    """Where the facts come from."""

    machine: Machine | None = None  # a machine that is not here; None: the one under sysfs
    sysfs: Path = Path("/sys")
    os_release: Path | None = None  # None: this host's
    config: Path | None = None  # the configuration file; None: the default one, if it exists

    @property
    def is_here(self) -> bool:
        """Whether the plan is for this host."""
        return self.machine is None and self.sysfs == Path("/sys")


def prepare(source: Source, wanted: Wish) -> Plan:
    """The plan. Raises WishError, MachineError, ConfigError and Unseen."""
    machine = source.machine or host_machine.read(source.sysfs)
    goal, notes = wish.apply(machine, wanted)
    settings = config.Config()
    if source.is_here or source.config:
        settings = config.load(source.config, machine.last)
    if source.is_here:
        known = survey.of_host(machine, source.os_release, settings.kubelet.root)
    else:
        nodes = None if source.machine else facts.numa_nodes(source.sysfs)
        known = survey.of_machine(machine, source.os_release, nodes)
    return parts.make(goal, known, settings, notes)
