"""systemd's units for services, sessions, virtual machines and PID 1: their CPUs.

isolcpus= keeps services off the isolated CPUs only until something uses the cpuset controller.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.plan.part import MARK, File, Part
from isolcpus_dp.report.check import services

if TYPE_CHECKING:
    from isolcpus_dp.plan.part import Goal, Target
    from isolcpus_dp.plan.survey import Known

# By unit: its drop-in.
_DROP_INS = {
    unit: PurePosixPath(f"/etc/systemd/system/{unit}.d/90-isolcpus-dp.conf")
    for unit in services.UNITS
}
# All files that the part may ever write.
PATHS = tuple(_DROP_INS.values())
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


def differences(goal: Goal, known: Known, root: Path) -> Iterator[str]:
    """Units of the running host that may use other CPUs, as sentences. Raises Unseen.

    A unit without a cgroup is not running, such as machine.slice without a virtual machine.
    """
    if not known.target.cgroup_v2:
        return
    cgroups = root / "sys/fs/cgroup"
    allowed = cpulist.render(goal.housekeeping)
    for unit in services.UNITS:
        # Empty, or missing without the controller cpuset: all CPUs.
        text = files.text(cgroups / unit / "cpuset.cpus")
        wrong = (cpulist.parse(text) ^ goal.housekeeping) & goal.machine.online
        if (cgroups / unit).is_dir() and (not text or wrong):
            cpus = f"CPU {text}" if text else "all CPUs"
            yield f"{unit} may use {cpus} instead of CPU {allowed} only"
    for name in files.names(cgroups):
        if name.endswith(".slice") and name not in services.UNITS and _is_open(cgroups / name):
            yield (
                f"{name} may use all CPUs: unless containers run in it, give it a file as that of"
                " system.slice"
            )


def _is_open(cgroup: Path) -> bool:
    """Whether a slice has processes, and neither CPUs of its own nor the pods. Raises Unseen."""
    names = [cgroup.name, *files.names(cgroup)]
    return (
        "populated 1" in files.lines(cgroup / "cgroup.events")
        and not files.text(cgroup / "cpuset.cpus")
        and not any("kubepods" in name for name in names)
    )


def _drop_in(unit: str, goal: Goal) -> File:
    section = _SECTIONS[unit.rpartition(".")[2]]
    return File(
        _DROP_INS[unit],
        f"# {MARK}\n[{section}]\n{services.allowed(goal.housekeeping)}\n",
    )
