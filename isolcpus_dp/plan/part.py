"""What a plan consists of: the files that it writes, and what is left to the administrator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine

# In the first line of each file that a plan writes, after the sign of a comment in its format.
MARK = "Written by isolcpus-dp plan, which replaces this file; see isolcpus-dp(8)."


@dataclass(frozen=True)
class File:
    """A file that the plan writes."""

    path: PurePosixPath  # absolute, below the directory of --write
    text: str  # begins with a comment line that says that isolcpus-dp plan wrote it


@dataclass(frozen=True)
class Part:
    """One part of a plan, such as the kernel's command line."""

    name: str  # "kernel", "systemd", "kubelet", "runtime", "tuning" or "plugin"
    summary: str  # one sentence: what it is for
    files: tuple[File, ...] = ()
    # To be run after the files were written, before the reboot; exact shell commands.
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what is left to the administrator, one sentence each


@dataclass(frozen=True)
class Goal:
    """Which CPUs are isolated and which stay: the wish, applied to a machine."""

    machine: Machine
    isolated: frozenset[int]
    housekeeping: frozenset[int]  # all other present CPUs


@dataclass(frozen=True)
class Target:
    """What is known about the host for which the plan is made."""

    distribution: Literal["debian", "el", "other"]  # from os-release's ID and ID_LIKE
    kernel: tuple[int, int]  # version; of the running kernel, or the distribution's if unknown
    tuned: bool  # whether TuneD is installed
    cgroup_v2: bool = True
