"""Processes of other daemons: which of them are root's on the host itself, and their arguments.

Any process can take any name, and any user can give it any arguments. Only a process of root
outside containers is trusted.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from isolcpus_dp.host import files

# The id of a container in the path of a cgroup. CRI-O's conmon, which monitors a container, runs in
# a cgroup of its own with the same id.
_ID = re.compile(r"(?<![0-9a-f])(?<!conmon-)[0-9a-f]{64}(?![0-9a-f])")
_ROOT = "0"
_MOST_ARGUMENTS = 1 << 18  # bytes of a command line or of an environment


def cgroups(proc: Path, pid: int) -> list[tuple[str, str]]:
    """The cgroup hierarchies of a process and its path in each; version 2 is the empty name."""
    lines = (line.split(":", 2) for line in files.lines(proc / str(pid) / "cgroup"))
    return [(line[1], line[2]) for line in lines if len(line) == 3]


def container_id(cgroup: str) -> str | None:
    """The id of the container in a path; with nested containers, that of the outermost one."""
    found = _ID.search(cgroup)
    return found[0] if found else None


def is_trusted(proc: Path, pid: int) -> bool:
    """Whether the process is root's, on the host itself, and started by root. Raises Unseen."""
    status = _status(proc, pid)
    # Real, effective, saved and file system user ID: proc(5).
    if set(status.get("Uid", "?").split()) != {_ROOT}:
        return False
    # In a PID namespace it has another number as well.
    if len(status.get("NSpid", "").split()) > 1:
        return False
    if any(container_id(path) for _, path in cgroups(proc, pid)):
        return False
    return not _is_setuid(proc, pid)


def arguments(proc: Path, pid: int) -> list[str]:
    """The command line of a process, with its program first. Raises Unseen."""
    return _strings(proc / str(pid) / "cmdline")


def environment(proc: Path, pid: int) -> dict[str, str]:
    """The variables with which a process was started. Raises Unseen."""
    variables = _strings(proc / str(pid) / "environ")
    return dict(variable.split("=", 1) for variable in variables if "=" in variable)


def absolute(proc: Path, pid: int, path: str) -> Path:
    """A path in the arguments of a process, which may be relative to its directory."""
    try:
        return (proc / str(pid) / "cwd").readlink() / path
    except OSError:
        return Path("/") / path  # where systemd starts services


def _is_setuid(proc: Path, pid: int) -> bool:
    """Whether the program may run as root for another user.

    sudo waits for a password as a process of root, under the name and with the arguments that its
    user has given to it.
    """
    try:
        return bool((proc / str(pid) / "exe").stat().st_mode & stat.S_ISUID)
    except OSError:
        return False  # not shown to other users than root


def _status(proc: Path, pid: int) -> dict[str, str]:
    lines = files.lines(proc / str(pid) / "status")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _strings(file: Path) -> list[str]:
    strings = files.text(file, _MOST_ARGUMENTS).split("\0")
    return strings[:-1] if strings[-1] == "" else strings
