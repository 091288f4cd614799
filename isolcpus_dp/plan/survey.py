"""What is known about the host for which a plan is made: distribution, kubelet and runtime.

A plan for a machine that is not here, or for another directory than /sys, knows only the
distribution.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isolcpus_dp.config import Config
from isolcpus_dp.host import files
from isolcpus_dp.kubelet import paths, rancher, running
from isolcpus_dp.plan.kubelet import DROP_IN, Kubelet
from isolcpus_dp.plan.part import Target
from isolcpus_dp.plan.runtime import CONTAINERD_CONFIG, Runtime
from isolcpus_dp.report.check import kubelet_settings
from isolcpus_dp.report.check.start import facts

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.report.check.host import Host

OS_RELEASE = Path("/etc/os-release")
_DEBIAN = ("debian", "ubuntu")
_EL = ("rhel", "fedora", "centos")
# By VERSION_ID: the kernel of Debian and EL. The oldest is taken for any other.
_KERNELS = {
    "debian": {"12": (6, 1), "13": (6, 12)},
    "el": {"8": (4, 18), "9": (5, 14), "10": (6, 12)},
}
_OLDEST = {"debian": (6, 1), "el": (5, 14), "other": (5, 10)}
# Where the programs of the host are.
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECONDS = 2.0  # for a program to print its version


@dataclass(frozen=True)
class Known:
    """All that a plan takes from the host, apart from its machine."""

    target: Target
    kubelet: Kubelet
    runtime: Runtime | None = None
    cmdline: str = ""
    notes: tuple[str, ...] = ()
    is_here: bool = False  # otherwise the target's `tuned` is only assumed


def of_machine(machine: Machine, os_release: Path | None, nodes: frozenset[int] | None) -> Known:
    """For a machine that is not here; `nodes` are its NUMA nodes, if they are known. Raises Unseen.

    The distribution is that of this host, or of the file.
    """
    if nodes is None:
        nodes = frozenset(cpu.node for cpu in machine.cpus.values() if cpu.node is not None)
    return Known(
        target=_target(os_release),
        kubelet=Kubelet(facts.Facts({}, machine, nodes), installed=None),
    )


def of_host(
    machine: Machine,
    os_release: Path | None,
    kubelet_root: Path | None = None,
    root: Path = Path("/"),
) -> Known:
    """For this host; `kubelet_root` as configured, None if it can be seen. Raises Unseen."""
    # These load gRPC, which a plan for another machine does not need.
    from isolcpus_dp.report.check.host import Host, Roots
    from isolcpus_dp.report.snapshot import Snapshot

    roots = Roots(
        sysfs=root / "sys",
        proc=root / "proc",
        kubelet_dir=root / "var/lib/kubelet",
        kubelet_root=kubelet_root,
        rancher=rancher.Places(root / "etc/rancher", root / "var/lib/rancher"),
    )
    target = replace(
        _target(os_release),
        tuned=any((root / name).exists() for name in ("usr/sbin/tuned", "usr/bin/tuned")),
        cgroup_v2=(roots.cgroups / "cgroup.controllers").exists(),
    )
    kubelet, notes = _kubelet(Host(roots, Snapshot(machine, Config(), (), (), ())))
    cmdline = files.text(roots.proc / "cmdline")
    return Known(target, kubelet, _runtime(root), cmdline, notes, is_here=True)


def _target(os_release: Path | None) -> Target:
    """From os-release, which systemd's os-release(5) describes. Raises Unseen."""
    fields = dict(
        re.findall(r"^([A-Z_]+)=[\"']?(.*?)[\"']?$", files.text(os_release or OS_RELEASE), re.M)
    )
    ids = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    distribution: Literal["debian", "el", "other"] = "other"
    if any(name in _DEBIAN for name in ids):
        distribution = "debian"
    elif any(name in _EL for name in ids):
        distribution = "el"
    version = fields.get("VERSION_ID", "").partition(".")[0]
    usual = _KERNELS.get(distribution, {}).get(version, _OLDEST[distribution])
    # Another host than this one, if its file was named.
    kernel = None if os_release else _version(os.uname().release)
    return Target(distribution, kernel or usual, tuned=False)


def _kubelet(host: Host) -> tuple[Kubelet, tuple[str, ...]]:
    """What can be seen of the kubelet, and why the rest cannot."""
    nodes = facts.numa_nodes(host.roots.sysfs)
    nothing = Kubelet(facts.Facts({}, host.machine, nodes), installed=None)
    version = _program_version("kubelet")
    is_set_up = True
    try:
        processes = [(thread.pid, thread.name) for thread in host.threads]
        found = running.find(host.roots.proc, processes, host.roots.rancher, host.roots.unit)
        unit = _unit(host, processes)
        version = _program_version("k3s") if unit.startswith("k3s") else version
        is_set_up = found is not None or _is_configured(host)
        if not is_set_up and version is None:
            return replace(nothing, installed=False), ()
        present = facts.read(host)
        known = replace(present, settings=kubelet_settings.read(host, without=DROP_IN))
    except files.Unseen as unseen:
        note = f"The kubelet's settings are not known: {unseen}."
        reason = str(unseen) if is_set_up else ""
        return replace(nothing, version=version, unseen=reason), (note,)
    flags = found.flags if found else None
    kubelet = Kubelet(known, flags=flags, version=version, unit=unit, present=present.settings)
    return kubelet, ()


def _is_configured(host: Host) -> bool:
    return (
        paths.configuration(kubelet_settings.root(host)).exists()
        or rancher.installed(host.roots.rancher) is not None
    )


def _unit(host: Host, processes: Iterable[tuple[int, str]]) -> str:
    """The unit of the kubelet, without its suffix. Raises Unseen."""
    for pid, name in processes:
        if name in rancher.PROCESSES:  # RKE2 has a process named kubelet, too
            role = rancher.role(host.roots.proc, pid)
            if role:
                unit = f"{rancher.PROCESSES[name]}-{role}"
                return "k3s" if unit == "k3s-server" else unit
        if name == "kubelite":
            return "snap.microk8s.daemon-kubelite"
    return "kubelet"


def _runtime(root: Path) -> Runtime | None:
    """The installed container runtime; containerd if both are. Raises Unseen."""
    if shutil.which("containerd", path=PROGRAMS):
        config = root / str(CONTAINERD_CONFIG).lstrip("/")
        text = files.text(config) if config.exists() else None
        return Runtime("containerd", _program_version("containerd"), text)
    if shutil.which("crio", path=PROGRAMS):
        return Runtime("crio", _program_version("crio"))
    return None


def _program_version(name: str) -> tuple[int, int] | None:
    """The version that an installed program prints; None if there is none."""
    path = shutil.which(name, path=PROGRAMS)
    if not path:
        return None
    try:
        printed = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return _version(printed)


def _version(text: str) -> tuple[int, int] | None:
    """The first version in a text, such as 6.1 or v1.31.2."""
    match = re.search(r"(?:^|\s)v?([0-9]+)\.([0-9]+)", text)
    return (int(match[1]), int(match[2])) if match else None
