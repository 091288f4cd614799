"""The container runtime's plugin interface, this project's daemons, and the owners' quotas."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from isolcpus_dp import config
from isolcpus_dp.host import daemons, trust
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning
from isolcpus_dp.report.check.host import HOST_PROC, Host
from isolcpus_dp.service import reload, units

# By hierarchy, as /proc/PID/cgroup names it: the file of its quota in cgroup version 2 or 1.
_QUOTAS = {"": "cpu.max", "cpu,cpuacct": "cpu.cfs_quota_us", "cpu": "cpu.cfs_quota_us"}


def cpu_quota(host: Host) -> Finding:
    """CPU quotas of the cgroups that contain owners' processes."""
    if not host.owned:
        return ok("no container owns CPUs")
    if host.owners_unseen:
        return unknown(f"the owners' processes are unknown: {host.owners_unseen}")
    pids = _pids_of_owners(host)
    throttled = sorted(_limited(host, pids))
    if not throttled:
        unseen = sorted(set(host.owned) - {str(host.container(pid)) for pid in pids})
        if unseen:
            return unknown(
                f"found no process of {some(unseen)}", "Run the check while the owners are running."
            )
        return ok("no owner has a CPU quota")
    evidence = f"CPU quotas throttle owners: {some(throttled)}"
    if host.snapshot.config.pinning.cpu_quota == "keep":
        return warning(
            evidence,
            "CPUQuota=keep is set. To lift quotas, set CPUQuota=unlimited in [Pinning], see"
            " isolcpus-dp.conf(5).",
        )
    return problem(
        evidence, "Run isolcpus-dp-pin, which lifts quotas, or remove the CPU limits from the pod."
    )


def nri(host: Host) -> Finding:
    """Whether the container runtime listens for plugins, as the kernel says; does not connect."""
    path = host.roots.nri_socket
    try:
        is_listening = _is_of_root(path) and host.roots.listens(path)
    except OSError as error:
        return unknown(f"the kernel does not list unix sockets: {error.strerror}", HOST_PROC)
    if is_listening:
        return ok(f"the runtime listens on {path}")
    advice = (
        "Enable NRI in the runtime's configuration, or name the runtime's socket with --nri-socket."
    )
    evidence = f"no process listens on {path}"
    if _pin_daemon_is_installed(host):
        return problem(f"{evidence}: containers are not pinned", advice)
    return warning(evidence, advice)


def pin_daemon(host: Host) -> Finding:
    """Whether the pinning daemon is running and connected to a runtime."""
    unit = host.roots.unit(units.PIN)
    if not _installed(unit):
        return warning(
            f"{units.PIN} is not installed: containers are pinned only if the kubelet pins them",
            "Install isolcpus-dp-pin, unless the kubelet pins containers, as StarlingX's does.",
        )
    if unit.get("ActiveState") != "active":
        return problem(
            f"{units.PIN} is {unit.get('ActiveState') or 'not running'}",
            f"Run systemctl enable --now {units.PIN}; if it fails, see journalctl -u {units.PIN}",
        )
    status = unit.get("StatusText", "")
    if not status.startswith("Connected"):
        return problem(
            f"{units.PIN} is running but not connected: {status or 'no status'}",
            f"Enable NRI in the runtime's configuration, and see journalctl -u {units.PIN}",
        )
    return ok(status)


# The kernel reports the time of boot in whole seconds.
_ROUNDING_SECONDS = 1.0


def versions(host: Host) -> Finding:
    """Whether the daemons run the installed version with the configuration in the files."""
    started = {unit: _started(host, host.roots.unit(unit)) for unit in (units.PLUGIN, units.PIN)}
    running = {unit: since for unit, since in started.items() if since is not None}
    if not running:
        return ok("no isolcpus-dp daemon is running")
    installed = _installed_at(host.roots.package)
    old = [unit for unit, since in running.items() if since + _ROUNDING_SECONDS < installed]
    try:
        outdated = _outdated(host, [unit for unit in running if unit not in old])
    except files.Unseen:
        if not old:
            raise
        outdated = []
    if not old and not outdated:
        return ok(f"running the installed version: {some(list(running))}")
    evidence = {
        "not restarted since the last upgrade": old,
        "running with an older configuration than that of the files": outdated,
    }
    commands = {"systemctl restart": old, "systemctl reload": outdated}
    return warning(
        "; ".join(f"{what}: {some(found)}" for what, found in evidence.items() if found),
        f"Run: {'; '.join(' '.join([run, *found]) for run, found in commands.items() if found)}",
    )


def _pin_daemon_is_installed(host: Host) -> bool:
    try:
        return _installed(host.roots.unit(units.PIN))
    except files.Unseen:
        return False  # the check pin-daemon reports the reason


def _pids_of_owners(host: Host) -> list[int]:
    return [
        pid
        for pid in sorted({thread.pid for thread in host.user_threads})
        if (container := host.container(pid)) and container.name in host.owned
    ]


def _limited(host: Host, pids: Iterable[int]) -> Iterator[str]:
    """The cgroups with a quota that contain these processes, each as text with its quota."""
    # Thousands of processes share a few cgroups.
    cgroups = {one for pid in pids for one in daemons.cgroups(host.roots.proc, pid)}
    directories = {
        (hierarchy, directory)
        for hierarchy, path in cgroups
        if hierarchy in _QUOTAS
        for directory in (PurePosixPath(path), *PurePosixPath(path).parents)
    }
    for hierarchy, directory in directories:
        below, name = str(directory).strip("/"), _QUOTAS[hierarchy]
        quota = files.text(host.roots.cgroups / hierarchy / below / name).split(" ")[0]
        if quota.isdecimal():
            yield f"{below}/{name} is {quota}"


def _is_of_root(path: Path) -> bool:
    """Whether the path leads to a socket of root. Raises Unseen if others can replace it."""
    try:
        trust.require(path.parent)
        status = path.stat()
    except PermissionError:
        return True  # only root can see it
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and status.st_uid in (0, os.geteuid())


def _installed(unit: Mapping[str, str]) -> bool:
    return unit.get("LoadState") == "loaded"


def _started(host: Host, unit: Mapping[str, str]) -> float | None:
    """When a unit's process was started, in seconds since 1970; None if it is not running."""
    since_boot = unit.get("ExecMainStartTimestampMonotonic", "")
    if unit.get("ActiveState") != "active" or not since_boot.isdecimal():
        return None
    for line in files.lines(host.roots.proc / "stat"):
        if line.startswith("btime "):
            return int(line.split()[1]) + int(since_boot) / 1e6
    raise files.Unseen(f"{host.roots.proc}/stat has no btime line: the time of boot is unknown")


def _outdated(host: Host, running: Iterable[str]) -> list[str]:
    """The units that use another configuration than that of the files. Raises Unseen.

    A unit of a version that does not publish its fingerprint is not among them.
    """
    present = config.fingerprint(host.snapshot.config)
    published = {
        unit: trust.text(host.roots.run / PurePosixPath(unit).stem / reload.PUBLISHED)
        for unit in running
    }
    return [unit for unit, used in published.items() if used not in ("", present)]


def _installed_at(package: Path) -> float:
    """When the newest module was installed, in seconds since 1970.

    Packages preserve the modification time of files, not the time of their inode's change.
    """
    return max((file.stat().st_ctime for file in package.rglob("*.py")), default=0.0)
