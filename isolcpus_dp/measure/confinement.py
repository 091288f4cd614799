"""Where the command itself may run: its cpuset must have the CPUs that it measures.

`isolcpus-dp plan` keeps login sessions and services off the isolated CPUs (AllowedCPUs=). A scope
in a slice of its own, directly below the root, is not restricted by that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from isolcpus_dp.host import cpulist, daemons, files

# Set for the command in the scope, so that it does not start a second one.
MARK = "ISOLCPUS_DP_MEASURE_SCOPE"
_SLICE = "isolcpusmeasure.slice"


class ConfinedError(Exception):
    """The command may not run on the CPUs; the message is one sentence."""


def allowed(sysfs: Path, proc: Path, pid: int) -> frozenset[int] | None:
    """The CPUs that the cpuset of a process has; None if no cpuset restricts it. Raises Unseen."""
    for controllers, path in daemons.cgroups(proc, pid):
        if not controllers:
            root, name = sysfs / "fs/cgroup", "cpuset.cpus.effective"
        elif "cpuset" in controllers.split(","):
            root, name = sysfs / "fs/cgroup/cpuset", "cpuset.effective_cpus"
        else:
            continue
        cpus = _nearest(root, path, name)
        if cpus is not None:
            return cpus
    return None


def _nearest(root: Path, path: str, name: str) -> frozenset[int] | None:
    """The content of a file in a cgroup, or in the nearest one above that has the controller."""
    cgroup = root / path.lstrip("/")
    for directory in (cgroup, *cgroup.parents):
        text = files.text(directory / name)
        if text:
            with contextlib.suppress(cpulist.CpuListError):
                return cpulist.parse(text)
        if directory == root:
            break
    return None


def command(
    program: Sequence[str], arguments: Sequence[str], systemd_run: str | None
) -> Sequence[str]:
    """The command that runs the program in a scope. Raises ConfinedError without systemd-run."""
    if systemd_run is None:
        raise ConfinedError(
            "this process may not run on the CPUs to be measured, and systemd-run is missing:"
            " start the command in a cgroup whose cpuset has these CPUs"
        )
    scope = ("--scope", "--quiet", "--collect", f"--slice={_SLICE}")
    return (systemd_run, *scope, "--", *program, *arguments)


def leave(
    cpus: Iterable[int],
    sysfs: Path,
    proc: Path = Path("/proc"),
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Replaces this process by the same command in a scope, unless it may run on all the CPUs.

    Raises ConfinedError.
    """
    try:
        cpuset = allowed(sysfs, proc, os.getpid())
    except files.Unseen as error:
        raise ConfinedError(f"where this command may run is unknown: {error}") from error
    missing = frozenset[int]() if cpuset is None else frozenset(cpus) - cpuset
    if not missing:
        return
    if MARK in environment:
        raise ConfinedError(
            f"CPU {cpulist.render(missing)} cannot be used by a scope of systemd either: see"
            f" AllowedCPUs= of {_SLICE} and -.slice"
        )
    words = command(_program(), sys.argv[1:], shutil.which("systemd-run"))
    sys.stdout.flush()
    try:
        os.execve(words[0], list(words), {**environment, MARK: "1"})
    except OSError as error:
        raise ConfinedError(f"could not run {words[0]}: {error.strerror}") from error


def stay_on(cpus: Iterable[int], proc: Path = Path("/proc")) -> None:
    """Keeps all threads of this process, and what it starts, on these CPUs."""
    wanted = frozenset(cpus)
    for name in files.names(proc / "self/task"):
        # A thread may have ended, and the CPUs of a simulated machine do not exist.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(name), wanted)


def _program() -> Sequence[str]:
    started = Path(sys.argv[0])
    if started.is_file() and os.access(started, os.X_OK):
        return (str(started.absolute()),)
    return (sys.executable, "-m", "isolcpus_dp")
