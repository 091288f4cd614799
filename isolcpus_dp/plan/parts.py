"""`Plan`: a goal with all parts that lead to it, and what to do in which order."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.plan import kernel, kubelet, plugin, runtime, systemd

if TYPE_CHECKING:
    from isolcpus_dp.config import Config
    from isolcpus_dp.plan.part import File, Goal, Part
    from isolcpus_dp.plan.survey import Known


_KUBELET = "kubelet"


@dataclass(frozen=True)
class Plan:
    """What a host needs so that the CPUs of the goal are isolated and used."""

    goal: Goal
    arguments: tuple[str, ...]  # of the kernel
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()  # about the goal itself
    drain: bool = True  # whether pods may run on the host

    @property
    def files(self) -> list[File]:
        return [file for part in self.parts for file in part.files]

    @property
    def commands(self) -> list[str]:
        """All that follows after the files were written, up to the check."""
        # The kubelet is stopped last, after the pods have left.
        early = [
            command for part in self.parts if part.name != _KUBELET for command in part.commands
        ]
        late = [
            command for part in self.parts if part.name == _KUBELET for command in part.commands
        ]
        drain = ["kubectl drain NODE --ignore-daemonsets --delete-emptydir-data"] * self.drain
        uncordon = ["kubectl uncordon NODE"] * self.drain
        return [*early, *drain, *late, "systemctl reboot", *uncordon, "isolcpus-dp check"]


def make(goal: Goal, known: Known, config: Config, notes: tuple[str, ...] = ()) -> Plan:
    """The plan for a goal, from what is known about the host and its configuration."""
    return Plan(
        goal,
        kernel.arguments(goal, known.cmdline),
        tuple(_parts(goal, known, config)),
        (*notes, *known.notes),
        drain=known.kubelet.installed is not False,
    )


def _parts(goal: Goal, known: Known, config: Config) -> Iterator[Part]:
    yield kernel.part(goal, known.target, known.cmdline)
    yield systemd.part(goal, known.target)
    yield kubelet.part(goal, known.target, known.kubelet)
    yield runtime.part(goal, known.target, known.runtime)
    if importlib.util.find_spec("isolcpus_dp.plan.tuning"):
        tuning = importlib.import_module("isolcpus_dp.plan.tuning")
        yield tuning.part(goal, known.target)
    yield plugin.part(goal, known.target, config)
