"""systemd's units for services, sessions, virtual machines and PID 1: their CPUs.

isolcpus= keeps services off the isolated CPUs only until something uses the cpuset controller.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.plan.part import MARK, File, Part
from isolcpus_dp.report.check import services

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target

_SECTIONS = {"scope": "Scope", "slice": "Slice"}
_SUMMARY = (
    "systemd, all services and all sessions run on the housekeeping CPUs, among them the kubelet,"
    " the container runtime, isolcpus-dp and isolcpus-dp-pin."
)


def part(goal: Goal, target: Target) -> Part:
    """With cgroup v1 it has no files: there, isolcpus= itself keeps services off."""
    if not target.cgroup_v2:
        return Part(
            "systemd",
            _SUMMARY,
            notes=(
                "This host uses cgroup v1, where AllowedCPUs= has no effect: isolcpus= keeps"
                " services off the isolated CPUs as long as no cpuset is set up for them.",
            ),
        )
    return Part(
        "systemd",
        _SUMMARY,
        tuple(_drop_in(unit, goal) for unit in services.UNITS),
        notes=(
            "kubepods.slice needs no such file, and must not have one: owners run in it on"
            " isolated CPUs, and isolcpus-dp-pin keeps all other containers off these.",
            "If this host has more slices directly below the root (systemd-cgls), each needs the"
            " same file.",
        ),
    )


def _drop_in(unit: str, goal: Goal) -> File:
    section = _SECTIONS[unit.rpartition(".")[2]]
    return File(
        PurePosixPath(f"/etc/systemd/system/{unit}.d/90-isolcpus-dp.conf"),
        f"# {MARK}\n[{section}]\n{services.allowed(goal.housekeeping)}\n",
    )
