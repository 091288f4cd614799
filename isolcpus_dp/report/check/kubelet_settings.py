"""The kubelet's settings: its configuration files and its command line.

The command line overrides the files, as in the kubelet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.kubelet import document, paths, rancher, running
from isolcpus_dp.report.check import files

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# pkg/kubelet/eviction/defaults_linux.go
_EVICTION = {"memory.available": "100Mi"}
# Flags that set a key of the configuration file. A flag whose key begins with "--" does not replace
# a key of the file.
_FLAGS = {
    "reserved-cpus": "reservedSystemCPUs",
    "system-reserved": "systemReserved",
    "system-reserved-cgroup": "systemReservedCgroup",
    "kube-reserved": "kubeReserved",
    "kube-reserved-cgroup": "kubeReservedCgroup",
    "enforce-node-allocatable": "enforceNodeAllocatable",
    "eviction-hard": "evictionHard",
    "experimental-allocatable-ignore-eviction": "--experimental-allocatable-ignore-eviction",
    "feature-gates": "--feature-gates",
    "config": "--config",
    "config-dir": "--config-dir",
    "cpu-manager-policy": "cpuManagerPolicy",
    "cpu-manager-policy-options": "cpuManagerPolicyOptions",
    "memory-manager-policy": "memoryManagerPolicy",
    "reserved-memory": "reservedMemory",
    "topology-manager-policy": "topologyManagerPolicy",
    "topology-manager-policy-options": "topologyManagerPolicyOptions",
    "topology-manager-scope": "topologyManagerScope",
    "pod-manifest-path": "staticPodPath",
}


def static_pod_path(host: Host) -> Path | None:
    """Where the kubelet finds the manifests of static pods; None for nowhere. Raises Unseen."""
    settings, file = _found(host)
    if not settings and not _flags(host):
        return host.roots.manifests  # nothing is known about the kubelet
    path = str(settings.get("staticPodPath") or "")
    # The kubelet resolves a relative path against the directory of its file.
    return file.parent / path if path else None


def node_name(host: Host) -> str:
    """The name of the node, with which the name of each static pod ends. Raises Unseen."""
    name = _flags(host).get("hostname-override") or files.text(
        host.roots.proc / "sys/kernel/hostname"
    )
    return name.strip().lower()


def root(host: Host) -> Path:
    """The kubelet's root directory. Raises Unseen."""
    return host.roots.kubelet_root or Path(_flags(host).get("root-dir") or host.roots.kubelet_dir)


def read(host: Host, without: str = "") -> Mapping[str, Any]:
    """By key: the kubelet's settings, from its files and its flags. Raises Unseen.

    A drop-in of the name `without` is left out.
    """
    settings, file = _found(host, without)
    if not settings and not _flags(host):
        raise files.Unseen(f"{file} does not exist, and no running kubelet names another file")
    return settings


def _found(host: Host, without: str = "") -> tuple[Mapping[str, Any], Path]:
    """The settings, empty if there are none, and the main file. Raises Unseen."""
    flags = _flags(host)
    file = Path(flags.get("config") or paths.configuration(root(host)))
    # A kubelet without --config reads no main file.
    settings = _with_eviction(document.read(file)) if flags.get("config") or not flags else {}
    if not settings and flags.get("config") and not file.exists():
        raise files.Unseen(f"{file}, which the kubelet's --config names, does not exist")
    drop_ins = document.drop_ins(Path(flags["config-dir"])) if flags.get("config-dir") else []
    for drop_in in (one for one in drop_ins if one.name != without):
        settings = _merged(settings, document.read(drop_in))
    settings.update({key: flags[flag] for flag, key in _FLAGS.items() if flag in flags})
    return settings, file


def _with_eviction(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The main file with the default of evictionHard, which the kubelet adds before the drop-ins.

    Without a main file, there is no default (loadConfigFile in cmd/kubelet/app/server.go).
    """
    given = settings.get("evictionHard")
    if given is None:
        given = {}
    elif settings.get("mergeDefaultEvictionSettings") is not True or not isinstance(given, dict):
        return dict(settings)
    return {**settings, "evictionHard": {**_EVICTION, **given}} if settings else {}


def _merged(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with a drop-in: mappings are merged, and null removes (RFC 7386)."""
    merged = dict(settings)
    for key, value in changes.items():
        before = merged.pop(key, None)
        if isinstance(value, dict):
            merged[key] = _merged(before if isinstance(before, dict) else {}, value)
        elif value is not None:
            merged[key] = value
    return merged


def _flags(host: Host) -> Mapping[str, str]:
    """By name: the kubelet's flags; empty if none are known. Raises Unseen.

    They are those of the running kubelet, or those with which k3s or RKE2 would start it.
    """
    roots = host.roots
    processes = ((thread.pid, thread.name) for thread in host.threads)
    found = running.find(roots.proc, processes, roots.rancher, roots.unit)
    usual = roots.kubelet_root or roots.kubelet_dir
    if not found and not paths.configuration(usual).exists():
        found = rancher.installed(roots.rancher)
    return found.flags if found else {}
