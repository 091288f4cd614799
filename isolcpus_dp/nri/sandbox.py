"""Keeps the sandboxes of pods off the isolated CPUs.

A sandbox is the process that holds a pod's namespaces (pause). The runtime reports no sandbox as a
container, so that NRI cannot change it: its cpuset is written in its cgroup.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.nri import cgroup, pinning
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.api import nri_pb2 as api
    from isolcpus_dp.nri.pinning import Rules
    from isolcpus_dp.nri.watches import Watches

log = logging.getLogger(__name__)

# For each version: the directory of its hierarchy, and the file that lists the threads.
_VERSIONS = (("", "cgroup.threads"), ("cpuset", "tasks"))

# What containerd and CRI-O call the cgroup of a sandbox, for each cgroup driver.
_NAMES = ("cri-containerd-{}.scope", "{}", "crio-{}.scope", "crio-{}")


class Sandboxes:
    """The sandboxes of one connection."""

    def __init__(self, root: Path, rules: Callable[[], Rules], watches: Watches) -> None:
        """`rules` returns the rules that are in force."""
        self._root = root
        self._rules = rules
        self._watches = watches
        self._failed: set[str] = set()  # ids of the pods whose failure is logged

    def keep_off(self, pod: api.PodSandbox) -> None:
        """Removes the isolated CPUs from the cpuset of a pod's sandbox, if it has a cgroup.

        A sandbox of several threads is unchanged. It may be a virtual machine, in which containers
        run that own CPUs.
        """
        for hierarchy, threads in _VERSIONS:
            for path in _paths(pod):
                directory = self._root / hierarchy / path
                if (directory / threads).is_file():
                    self._keep_off(
                        pod.id,
                        f"{pod.namespace}/{pod.name}",
                        directory / threads,
                        directory / "cpuset.cpus",
                    )
                    return

    def _keep_off(self, pod: str, name: str, threads: Path, cpuset: Path) -> None:
        """`pod` is the id of a pod, and not its message: what a watch keeps should be small."""
        try:
            number = len(threads.read_text().split())
            if number != 1:
                log.debug("the sandbox of pod %s has %d threads: unchanged", name, number)
                return
            self._write(cpuset)
            # systemd may set the cpuset of its unit again when it is reloaded.
            self._watches.add(cpuset, lambda: self._keep_off(pod, name, threads, cpuset))
        except (OSError, cpulist.CpuListError) as error:
            if pod not in self._failed and threads.exists():  # otherwise the pod has ended
                self._failed.add(pod)
                emit(
                    log, Event.NOT_PINNED, "could not keep the sandbox of pod %s off the isolated"
                    " CPUs: %s: %s", name, cpuset, getattr(error, "strerror", error),
                    pod=name, container="POD",
                )  # fmt: skip

    def _write(self, cpuset: Path) -> None:
        before = cpuset.read_text().strip()
        decision = pinning.decide(self._rules(), {}, before)
        if decision.cpus is not None and cpulist.render(decision.cpus) != before:
            cpuset.write_text(cpulist.render(decision.cpus))


def _paths(pod: api.PodSandbox) -> list[PurePosixPath]:
    """Where the cgroup of a sandbox may be: as the runtime reports it, or as runtimes name it.

    For systemd, the runtime reports slice:prefix:name.
    """
    parent, *unit = pod.linux.cgroups_path.split(":")
    if len(unit) == 2:
        return [cgroup.path_of(parent) / f"{unit[0]}-{unit[1]}.scope"]
    if parent:
        return [cgroup.path_of(parent)]
    if not pod.linux.cgroup_parent or not pod.id:
        return []
    return [cgroup.path_of(pod.linux.cgroup_parent) / name.format(pod.id) for name in _NAMES]
