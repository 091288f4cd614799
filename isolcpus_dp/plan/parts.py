"""`Plan`: a goal with all parts that lead to it, and what to do in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isolcpus_dp.plan import kernel, kubelet, plugin, runtime, systemd, tuned, tuning

if TYPE_CHECKING:
    from pathlib import PurePosixPath

    from isolcpus_dp.config import Config
    from isolcpus_dp.plan.part import File, Goal, Part
    from isolcpus_dp.plan.survey import Known

_KUBELET = "kubelet"
# All files that a plan may ever write, as far as they are known; those that a plan lacks may be
# there from an earlier one.
PATHS = (*kernel.PATHS, *systemd.PATHS, *kubelet.PATHS, *runtime.PATHS, *tuning.PATHS)


@dataclass(frozen=True)
class Plan:
    """What a host needs so that the CPUs of the goal are isolated and used."""

    goal: Goal
    arguments: tuple[str, ...]  # of the kernel
    parts: tuple[Part, ...]
    known: Known  # about the host
    notes: tuple[str, ...] = ()  # about the goal itself
    drain: bool = True  # whether pods may run on the host

    @property
    def files(self) -> list[File]:
        return [file for part in self.parts for file in part.files]

    @property
    def former(self) -> list[PurePosixPath]:
        """The paths of files that this plan does not have, but an earlier one may have.

        Without those of a runtime or of TuneD if it is not known whether the host has it.
        """
        keep = {file.path for file in self.files}
        keep.update(() if self.known.runtime else runtime.PATHS)
        keep.update(() if self.known.is_here else tuned.PATHS)
        return [path for path in PATHS if path not in keep]

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
        known,
        (*notes, *known.notes),
        drain=known.kubelet.installed is not False,
    )


def _parts(goal: Goal, known: Known, config: Config) -> Iterator[Part]:
    yield kernel.part(goal, known.target, known.cmdline)
    yield systemd.part(goal, known.target)
    yield kubelet.part(goal, known.target, known.kubelet)
    yield runtime.part(goal, known.target, known.runtime)
    yield tuning.part(goal, known.target)
    yield plugin.part(goal, known.target, config)
