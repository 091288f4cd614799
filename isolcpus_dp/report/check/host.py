"""The host as checks see it: where things are, and what more than one check looks at."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host.machine import Machine
from isolcpus_dp.kubelet import paths
from isolcpus_dp.nri.paths import DEFAULT_SOCKET
from isolcpus_dp.report import status
from isolcpus_dp.report.check import containers, files, tasks

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.report.check.containers import Container
    from isolcpus_dp.report.check.tasks import Thread
    from isolcpus_dp.report.snapshot import Snapshot


@functools.lru_cache(maxsize=8)
def systemd_shows(unit: str) -> Mapping[str, str]:
    """What systemd says of a unit. Raises Unseen if it cannot be asked."""
    try:
        return status.show_unit(unit)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise files.Unseen(f"systemd cannot be asked about {unit}: {error}") from error


@dataclass(frozen=True)
class Roots:
    """Where a host has its things; all of it can be made up."""

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    kubelet_dir: Path = paths.DEFAULT_DIRECTORY
    container_logs: Path = Path("/var/log/containers")
    nri_socket: Path = DEFAULT_SOCKET
    latency: Path = Path("/dev/cpu_dma_latency")
    package: Path = Path(__file__).parents[2]  # what is installed of us
    unit: Callable[[str], Mapping[str, str]] = systemd_shows  # by name; raises Unseen

    @property
    def cgroups(self) -> Path:
        return self.sysfs / "fs" / "cgroup"


@dataclass(frozen=True)
class Host:
    """One host at one moment."""

    roots: Roots
    snapshot: Snapshot
    interval: float = 1.0  # seconds in which interrupts are counted

    @property
    def machine(self) -> Machine:
        return self.snapshot.machine

    @functools.cached_property
    def isolated(self) -> frozenset[int]:
        """The isolated CPUs that are online: on the others nothing can run."""
        return self.machine.isolated & self.machine.online

    @functools.cached_property
    def housekeeping(self) -> frozenset[int]:
        return self.machine.online - self.machine.isolated

    @functools.cached_property
    def threads(self) -> tuple[Thread, ...]:
        """Raises Unseen."""
        return tasks.read(self.roots.proc)

    @functools.cached_property
    def kernel_threads(self) -> tuple[Thread, ...]:
        """Raises Unseen where only some processes are seen: nothing follows from the others."""
        self._see_everybody()
        return tuple(thread for thread in self.threads if thread.kernel)

    @functools.cached_property
    def user_threads(self) -> tuple[Thread, ...]:
        """Those of everybody. Raises Unseen where only some processes are seen."""
        self._see_everybody()
        return tuple(thread for thread in self.threads if not thread.kernel)

    def daemon(self, name: str, threads: Iterable[Thread]) -> int | None:
        """The PID of a daemon of the host's own; None if it is not among the threads.

        A process may call itself anything: one in a container is not believed. Raises Unseen.
        """
        pids = (thread.pid for thread in threads if thread.name == name)
        return next((pid for pid in pids if self.container(pid) is None), None)

    def _see_everybody(self) -> None:
        """Raises Unseen where processes are hidden: then those of the kernel are, too."""
        if not any(thread.parent_of_the_kernels for thread in self.threads):
            raise files.Unseen(
                f"{self.roots.proc} hides processes (hidepid=, or a container's own /proc): look"
                " as root, on the host"
            )

    @functools.cached_property
    def owned(self) -> Mapping[str, frozenset[int]]:
        """The CPUs that containers own, by namespace/pod/container. Raises Unseen."""
        if self.snapshot.unseen:
            raise files.Unseen("; ".join(self.snapshot.unseen))
        owned: dict[str, frozenset[int]] = {}
        for owner in self.snapshot.owners:
            name = str(owner.allocation)
            owned[name] = owned.get(name, frozenset()) | owner.cpus
        return owned

    @functools.cached_property
    def owners_unseen(self) -> str:
        """Why nobody can tell which processes are an owner's; nothing if it can be told."""
        if self.snapshot.owners and not self._container_names:
            return f"{self.roots.container_logs} names no container"
        return "; ".join(self.snapshot.unseen)

    @functools.cached_property
    def container(self) -> Callable[[int], Container | None]:
        """By PID, the container that a process belongs to; None if to none."""
        return functools.lru_cache(maxsize=None)(
            lambda pid: containers.of(self.roots.proc, pid, self._container_names)
        )

    @functools.cached_property
    def _container_names(self) -> dict[str, str]:
        try:
            return containers.names(self.roots.container_logs)
        except files.Unseen:
            return {}

    @functools.cached_property
    def arguments(self) -> Mapping[str, tuple[str, ...]]:
        """The kernel's arguments with their values, in order: a name may come more than once."""
        arguments: dict[str, tuple[str, ...]] = {}
        for word in files.text(self.roots.proc / "cmdline").split():
            if word == "--":  # what follows is for init
                break
            name, _, value = word.replace('"', "").partition("=")
            arguments[name] = (*arguments.get(name, ()), value)
        return arguments
