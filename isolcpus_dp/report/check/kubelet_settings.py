"""The kubelet's settings: its configuration files and its command line.

The command line overrides the files, as in the kubelet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.kubelet import paths
from isolcpus_dp.report.check import document, files

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

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
# Flags that add to their value each time that they are given; the times are separated by lines.
_ADDING = frozenset(
    (
        "system-reserved",
        "kube-reserved",
        "enforce-node-allocatable",
        "eviction-hard",
        "feature-gates",
        "cpu-manager-policy-options",
        "reserved-memory",
        "topology-manager-policy-options",
    )
)


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


def read(host: Host) -> Mapping[str, Any]:
    """By key: the kubelet's settings, from its files and its flags. Raises Unseen."""
    settings, file = _found(host)
    if not settings and not _flags(host):
        raise files.Unseen(f"{file} does not exist, and no running kubelet names another file")
    return settings


def _found(host: Host) -> tuple[Mapping[str, Any], Path]:
    """The settings, empty if there are none, and the main file. Raises Unseen."""
    flags = _flags(host)
    file = Path(flags.get("config", str(paths.configuration(host.roots.kubelet_dir))))
    settings = _read_file(file)
    directory = Path(flags["config-dir"]) if "config-dir" in flags else None
    for name in files.names(directory) if directory else []:
        if directory and name.endswith(".conf"):
            settings = _merged(settings, _read_file(directory / name))
    settings.update({key: flags[flag] for flag, key in _FLAGS.items() if flag in flags})
    return settings, file


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


def _read_file(file: Path) -> dict[str, Any]:
    """The keys and values of a file; empty if the file is missing. Raises Unseen."""
    text = document.text(file)
    return document.parse(file, text) if text else {}


def _flags(host: Host) -> Mapping[str, str]:
    """By name: the flags of the running kubelet, given as --name=value or --name value."""
    pid = host.daemon("kubelet", host.threads)
    words = files.text(host.roots.proc / str(pid) / "cmdline").split("\0") if pid else []
    flags: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            flag, given = name.lstrip("-"), value if equals else following
            before = flags.get(flag) if flag in _ADDING else None
            flags[flag] = given if before is None else f"{before}\n{given}"
    return flags
