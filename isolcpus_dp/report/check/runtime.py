"""The container runtime's side: its plugin interface, our daemons, and the quotas of owners."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from isolcpus_dp.report.check import containers, files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning
from isolcpus_dp.service import units

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

_ACCEPTS = 0x10000  # of the flags in /proc/net/unix: somebody listens
# The file of each version of cgroups, under the name that the process gives its hierarchy.
_QUOTAS = {"": "cpu.max", "cpu,cpuacct": "cpu.cfs_quota_us", "cpu": "cpu.cfs_quota_us"}


def cpu_quota(host: Host) -> Finding:
    """CPU quotas of the cgroups above the processes of owners."""
    if not host.owned:
        return ok("no container owns CPUs")
    if host.owners_unseen:
        return unknown(f"the processes of owners are not seen: {host.owners_unseen}")
    pids = _pids_of_owners(host)
    throttled = sorted(_limited(host, pids))
    if not throttled:
        unseen = sorted(set(host.owned) - {str(host.container(pid)) for pid in pids})
        if unseen:
            return unknown(f"no process is seen of {some(unseen)}", "Check while they run.")
        return ok("no owner has a CPU quota")
    evidence = f"owners are throttled: {some(throttled)}"
    if host.snapshot.config.pinning.cpu_quota == "keep":
        return warning(evidence, "CPUQuota=keep wants it so: see [Pinning] in isolcpus-dp.conf(5).")
    return problem(
        evidence, "Let isolcpus-dp-pin run, which lifts quotas, or take the CPU limits off the pod."
    )


def nri(host: Host) -> Finding:
    """Whether the container runtime listens for plugins; asked of the kernel, not by connecting."""
    file = host.roots.proc / "net/unix"
    lines = files.text(file).splitlines()[1:]
    if not lines:
        return unknown(f"{file} shows no socket", "Look where /proc is the host's.")
    wanted = _plain(str(host.roots.nri_socket))
    if any(_plain(path) == wanted for path in _listening(lines)):
        return ok(f"the runtime listens on {host.roots.nri_socket}")
    advice = "Turn NRI on in the runtime's configuration; --nri-socket names another socket."
    evidence = f"nobody listens on {host.roots.nri_socket}"
    if _pin_daemon_is_installed(host):
        return problem(f"{evidence}: containers are not pinned", advice)
    return warning(evidence, advice)


def pin_daemon(host: Host) -> Finding:
    """Whether our pin daemon runs and is connected to a runtime."""
    said = host.roots.unit(units.PIN)
    if not _installed(said):
        return warning(
            f"{units.PIN} is not installed: containers are pinned only if the kubelet does it",
            "Install isolcpus-dp-pin, unless the kubelet pins containers, as StarlingX's does.",
        )
    if said.get("ActiveState") != "active":
        return problem(
            f"{units.PIN} is {said.get('ActiveState') or 'not running'}",
            f"systemctl enable --now {units.PIN}, and see journalctl -u {units.PIN}",
        )
    status = said.get("StatusText", "")
    if not status.startswith("Connected"):
        return problem(
            f"{units.PIN} runs, but is not connected: {status or 'no status'}",
            f"Turn NRI on in the runtime's configuration, and see journalctl -u {units.PIN}",
        )
    return ok(status)


# The kernel tells in whole seconds when it booted.
_CUT_SECONDS = 1.0


def versions(host: Host) -> Finding:
    """Whether our daemons run what is installed, or what was before an upgrade."""
    started = {unit: _started(host, host.roots.unit(unit)) for unit in (units.PLUGIN, units.PIN)}
    running = {unit: since for unit, since in started.items() if since is not None}
    if not running:
        return ok("no daemon of ours runs")
    installed = _installed_at(host.roots.package)
    old = [unit for unit, since in running.items() if since + _CUT_SECONDS < installed]
    if old:
        return warning(
            f"started before the present version was installed: {some(old)}",
            f"systemctl restart {' '.join(old)}",
        )
    return ok(f"run what is installed: {some(list(running))}")


def _pin_daemon_is_installed(host: Host) -> bool:
    try:
        return _installed(host.roots.unit(units.PIN))
    except files.Unseen:
        return False  # pin-daemon says so


def _pids_of_owners(host: Host) -> list[int]:
    return [
        pid
        for pid in sorted({thread.pid for thread in host.user_threads})
        if (container := host.container(pid)) and container.name in host.owned
    ]


def _limited(host: Host, pids: Iterable[int]) -> Iterator[str]:
    """The cgroups above processes that have a quota, each with what it says."""
    # Thousands of processes share a few cgroups.
    within = {one for pid in pids for one in containers.cgroups(host.roots.proc, pid)}
    folders = {
        (hierarchy, folder)
        for hierarchy, path in within
        if hierarchy in _QUOTAS
        for folder in (PurePosixPath(path), *PurePosixPath(path).parents)
    }
    for hierarchy, folder in folders:
        below, name = str(folder).strip("/"), _QUOTAS[hierarchy]
        quota = files.text(host.roots.cgroups / hierarchy / below / name).split(" ")[0]
        if quota.isdecimal():
            yield f"{below}/{name} is {quota}"


def _listening(lines: list[str]) -> Iterator[str]:
    """The paths of unix sockets on which somebody listens."""
    for line in lines:
        words = line.split(None, 7)
        if len(words) == 8 and int(words[3], 16) & _ACCEPTS:
            yield words[7]


def _plain(path: str) -> str:
    # /var/run is a link to /run: which of the two a process has used is all the same.
    return f"/run{path[len('/var/run') :]}" if path.startswith("/var/run/") else path


def _installed(unit: Mapping[str, str]) -> bool:
    return unit.get("LoadState") == "loaded"


def _started(host: Host, unit: Mapping[str, str]) -> float | None:
    """When a unit's process was started, as time(2); None if it does not run."""
    since_boot = unit.get("ExecMainStartTimestampMonotonic", "")
    if unit.get("ActiveState") != "active" or not since_boot.isdecimal():
        return None
    for line in files.text(host.roots.proc / "stat").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) + int(since_boot) / 1e6
    raise files.Unseen(f"{host.roots.proc}/stat does not tell when the host was booted")


def _installed_at(package: Path) -> float:
    """When the newest of our files was put here, as time(2): packages keep only older times."""
    return max((file.stat().st_ctime for file in package.rglob("*.py")), default=0.0)
