"""The arguments of the running kubelet, wherever its distribution keeps them.

kubeadm, k0s and RKE2 start a program `kubelet` with all of them. MicroK8s runs the kubelet inside
`kubelite`, which reads a file of arguments, and k3s inside its own process, see `rancher`.
"""

from __future__ import annotations

import functools
import shlex
import string
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import daemons, files, trust
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import flags, rancher
from isolcpus_dp.kubelet.flags import Arguments

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.rancher import Places, ShowUnit

# The names of processes that are or contain a kubelet, or start one, in this order of preference.
_NAMES = ("kubelet", "kubelite", *rancher.PROCESSES)


def find(
    proc: Path,
    processes: Iterable[tuple[int, str]],
    places: Places,
    show_unit: ShowUnit = rancher.no_unit,
) -> Arguments | None:
    """The arguments of the first trusted kubelet among processes, given as PID and name.

    None without such a process. Raises Unseen.
    """
    named = [(pid, name) for pid, name in processes if name in _NAMES]
    for pid, name in sorted(named, key=lambda process: _NAMES.index(process[1])):
        if not daemons.is_trusted(proc, pid):
            continue
        if name not in rancher.PROCESSES or rancher.role(proc, pid):
            return of(proc, pid, places, show_unit, name)
    return None


def of(
    proc: Path,
    pid: int,
    places: Places,
    show_unit: ShowUnit = rancher.no_unit,
    name: str = "",
) -> Arguments:
    """The arguments of the kubelet that a process is or contains. Raises Unseen."""
    name = name or files.text(proc / str(pid) / "comm")
    if name in rancher.PROCESSES:
        return rancher.of(proc, pid, name, places, show_unit)
    resolve = functools.partial(daemons.absolute, proc, pid)
    given = flags.parse(daemons.arguments(proc, pid)[1:])
    if "kubelet-args-file" not in given:
        return Arguments(f"the command line of process {pid}", flags.absolute(given, resolve))
    file = resolve(given["kubelet-args-file"])
    return Arguments(str(file), flags.absolute(flags.parse(_words(proc, pid, file)), resolve))


def _words(proc: Path, pid: int, file: Path) -> list[str]:
    """The words of a file of arguments, with the variables of the process. Raises Unseen."""
    text = trust.text(file)
    if "$" in text:
        text = string.Template(text).safe_substitute(daemons.environment(proc, pid))
    try:
        return shlex.split(text, comments=True)
    except ValueError as error:
        raise Unseen(f"{file} is not a file of arguments: {error}") from error
