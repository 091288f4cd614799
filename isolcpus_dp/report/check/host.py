"""The host as the checks see it: its paths, and the facts that several checks use."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cmdline, daemons, sock_diag
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.kubelet import paths, rancher
from isolcpus_dp.nri.paths import DEFAULT_SOCKET
from isolcpus_dp.report import status
from isolcpus_dp.report.check import containers, files, tasks

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.kubelet.rancher import Places
    from isolcpus_dp.report.check.containers import Container
    from isolcpus_dp.report.check.tasks import Thread
    from isolcpus_dp.report.snapshot import Snapshot

# Advice when /proc or /sys lacks what every host has.
HOST_PROC = "Run the check on the host, where /proc is the host's."
HOST_SYS = "Run the check on the host, where /sys is the host's."


@functools.lru_cache(maxsize=8)
def systemd_shows(unit: str) -> Mapping[str, str]:
    """The properties of a unit, from systemd. Raises Unseen if systemd does not answer."""
    try:
        return status.show_unit(unit)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise files.Unseen(f"cannot query systemd for {unit}: {error}") from error


@dataclass(frozen=True)
class Roots:
    """The paths of a host; tests replace all of them."""

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    kubelet_dir: Path = paths.DEFAULT_DIRECTORY
    kubelet_root: Path | None = None  # None: as the running kubelet says, or kubelet_dir
    rancher: Places = rancher.USUAL  # the configuration of k3s and RKE2
    manifests: Path = Path("/etc/kubernetes/manifests")  # of static pods; kubeadm's default
    container_logs: Path = Path("/var/log/containers")
    nri_socket: Path = DEFAULT_SOCKET
    latency: Path = Path("/dev/cpu_dma_latency")
    package: Path = Path(__file__).parents[2]  # the installed isolcpus_dp
    run: Path = Path("/run")  # has the runtime directories of the daemons
    listens: Callable[[Path], bool] = sock_diag.listens
    # By a unit's name: its properties. Raises Unseen.
    unit: Callable[[str], Mapping[str, str]] = systemd_shows

    @property
    def cgroups(self) -> Path:
        return self.sysfs / "fs" / "cgroup"


@dataclass(frozen=True)
class Host:
    """One host at one moment."""

    roots: Roots
    snapshot: Snapshot
    interval: float = 1.0  # seconds during which interrupts are counted

    @property
    def machine(self) -> Machine:
        return self.snapshot.machine

    @functools.cached_property
    def isolated(self) -> frozenset[int]:
        """The isolated CPUs that are online; nothing can run on an offline CPU."""
        return self.machine.isolated & self.machine.online

    @functools.cached_property
    def housekeeping(self) -> frozenset[int]:
        return self.machine.online - self.machine.isolated

    @functools.cached_property
    def threads(self) -> tuple[Thread, ...]:
        """All threads in /proc. Raises Unseen."""
        return tasks.read(self.roots.proc)

    @functools.cached_property
    def kernel_threads(self) -> tuple[Thread, ...]:
        """The kernel's threads. Raises Unseen if /proc hides some processes."""
        self._require_all_processes()
        return tuple(thread for thread in self.threads if thread.kernel)

    @functools.cached_property
    def user_threads(self) -> tuple[Thread, ...]:
        """The threads of all users. Raises Unseen if /proc hides some processes."""
        self._require_all_processes()
        return tuple(thread for thread in self.threads if not thread.kernel)

    def daemon(self, name: str, threads: Iterable[Thread]) -> int | None:
        """The PID of a daemon of root on the host itself; None if there is none. Raises Unseen.

        Any process can take any name, so other users' processes are ignored.
        """
        pids = (thread.pid for thread in threads if thread.name == name)
        return next((pid for pid in pids if daemons.is_trusted(self.roots.proc, pid)), None)

    def _require_all_processes(self) -> None:
        """Raises Unseen if /proc hides processes: it then hides the kernel's as well."""
        if not any(thread.parent_of_the_kernels for thread in self.threads):
            raise files.Unseen(
                f"{self.roots.proc} hides processes (hidepid=, or a container's own /proc): run the"
                " check as root on the host"
            )

    @functools.cached_property
    def owned(self) -> Mapping[str, frozenset[int]]:
        """By namespace/pod/container: the CPUs that it owns. Raises Unseen."""
        if self.snapshot.unseen:
            raise files.Unseen("; ".join(self.snapshot.unseen))
        owned: dict[str, frozenset[int]] = {}
        for owner in self.snapshot.owners:
            name = str(owner.allocation)
            owned[name] = owned.get(name, frozenset()) | owner.cpus
        return owned

    @functools.cached_property
    def owners_unseen(self) -> str:
        """Why the owners' processes cannot be identified; empty if they can."""
        if self.snapshot.owners and not self._container_names:
            try:
                containers.names(self.roots.container_logs)
            except files.Unseen as unseen:
                return str(unseen)
            return f"{self.roots.container_logs} lists no containers"
        return "; ".join(self.snapshot.unseen)

    @functools.cached_property
    def container(self) -> Callable[[int], Container | None]:
        """A cached function: by PID, the container of the process; None if it is in none."""
        return functools.lru_cache(maxsize=None)(
            lambda pid: containers.find(
                self.roots.proc, self.roots.cgroups, pid, self._container_names
            )
        )

    @functools.cached_property
    def _container_names(self) -> dict[str, str]:
        try:
            return containers.names(self.roots.container_logs)
        except files.Unseen:
            return {}

    @functools.cached_property
    def arguments(self) -> Mapping[str, tuple[str, ...]]:
        """By name: the values of a kernel argument, in order; it may be given more than once."""
        arguments: dict[str, tuple[str, ...]] = {}
        for name, value in cmdline.split(files.text(self.roots.proc / "cmdline")):
            arguments[name] = (*arguments.get(name, ()), value)
        return arguments
