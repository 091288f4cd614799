"""The kubelet's settings about CPUs: its configuration files and its command line.

The command line overrides the files, as in the kubelet.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.kubelet import paths
from isolcpus_dp.report.check import document, files
from isolcpus_dp.report.check.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# Flags that set a key of the configuration file.
_FLAGS = {
    "reserved-cpus": "reservedSystemCPUs",
    "cpu-manager-policy": "cpuManagerPolicy",
    "topology-manager-policy": "topologyManagerPolicy",
    "pod-manifest-path": "staticPodPath",
}


def reserved_cpus(host: Host) -> Finding:
    """Whether the kubelet excludes the isolated CPUs from the resource cpu."""
    reserved = str(_settings(host).get("reservedSystemCPUs") or "")
    isolated = host.machine.isolated & host.machine.present
    missing = isolated - cpulist.parse(reserved)
    if missing:
        return problem(
            f"reservedSystemCPUs is {reserved or 'not set'}: isolated CPU {render(missing)} also"
            " counts as the resource cpu",
            "Set in the kubelet's configuration: reservedSystemCPUs:"
            f' "{render(cpulist.parse(reserved) | isolated)}", and add at least one housekeeping'
            " CPU for system processes.",
        )
    return ok(f"reservedSystemCPUs is {reserved or 'not set'}; no isolated CPU is missing")


def cpu_manager(host: Host) -> Finding:
    """The CPU manager's policy, and the isolated CPUs that its state file assigns."""
    settings = _settings(host)
    policy = str(settings.get("cpuManagerPolicy") or "none").lower()
    state_file = paths.cpu_manager_state(host.roots.kubelet_dir)
    state = _state(state_file)
    saved_policy = str(state.get("policyName", policy)).lower()
    if saved_policy != policy:
        return problem(
            f"the policy is {policy}, but cpu_manager_state has policy {saved_policy}: the kubelet"
            " does not start",
            f"Drain the node, stop the kubelet, remove {state_file}, and start the kubelet.",
        )
    given = _given(state) & host.machine.isolated
    if given:
        return problem(
            f"the CPU manager gave isolated CPU {render(given)} to containers as cpu",
            "Set reservedSystemCPUs (see the check reserved-cpus), drain the node, stop the"
            f" kubelet, remove {state_file}, and start the kubelet.",
        )
    shared = cpulist.parse(str(state.get("defaultCpuSet") or "")) & host.machine.isolated
    if policy == "static" and shared:
        return warning(
            f"the CPU manager lets all other containers run on isolated CPU {render(shared)}",
            "Run isolcpus-dp-pin, which keeps them off these CPUs. To make the kubelet do so as"
            " well (Kubernetes 1.32 and newer): set"
            ' cpuManagerPolicyOptions: {strict-cpu-reservation: "true"}, drain the node, stop the'
            f" kubelet, remove {state_file}, and start the kubelet.",
        )
    return ok(f"policy {policy}; the CPU manager gave no isolated CPU to a container")


def topology_manager(host: Host) -> Finding:
    """The topology manager's policy on a host with several NUMA nodes."""
    policy = str(_settings(host).get("topologyManagerPolicy") or "none").lower()
    nodes = {cpu.node for cpu in host.machine.cpus.values() if cpu.node is not None}
    if policy == "none" and len(nodes) > 1:
        return warning(
            f"policy none on {len(nodes)} NUMA nodes: a container's CPUs, devices and memory may be"
            " on different nodes",
            "Set in the kubelet's configuration: topologyManagerPolicy: best-effort, or a stricter"
            " policy.",
        )
    return ok(f"policy {policy}, NUMA nodes: {len(nodes) or 1}")


def static_pod_path(host: Host) -> Path | None:
    """Where the kubelet finds the manifests of static pods; None for nowhere. Raises Unseen."""
    settings, file = _found_settings(host)
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


def _settings(host: Host) -> Mapping[str, Any]:
    """By key: the kubelet's settings, from its files and its flags. Raises Unseen."""
    settings, file = _found_settings(host)
    if not settings and not _flags(host):
        raise files.Unseen(f"{file} does not exist, and no running kubelet names another file")
    return settings


def _found_settings(host: Host) -> tuple[Mapping[str, Any], Path]:
    """The settings, empty if there are none, and the main file. Raises Unseen."""
    flags = _flags(host)
    file = Path(flags.get("config", str(paths.configuration(host.roots.kubelet_dir))))
    settings = _read(file)
    directory = Path(flags["config-dir"]) if "config-dir" in flags else None
    for name in files.names(directory) if directory else []:
        if directory and name.endswith(".conf"):
            settings.update(_read(directory / name))
    settings.update({key: flags[flag] for flag, key in _FLAGS.items() if flag in flags})
    return settings, file


def _read(file: Path) -> dict[str, Any]:
    """The keys and values of a file; empty if the file is missing. Raises Unseen."""
    text = document.text(file)
    return document.parse(file, text) if text else {}


def _flags(host: Host) -> Mapping[str, str]:
    """By name: the flags of the running kubelet, given as --name=value or --name value."""
    pid = host.daemon("kubelet", host.threads)
    words = files.text(host.roots.proc / str(pid) / "cmdline").split("\0") if pid else []
    flags = {}
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            flags[name.lstrip("-")] = value if equals else following
    return flags


def _state(file: Path) -> Mapping[str, Any]:
    """The CPU manager's checkpoint; empty if the file is missing. Raises Unseen."""
    try:
        state = json.loads(files.text(file) or "{}")
    except ValueError as error:
        raise files.Unseen(f"{file} is not valid JSON: {error}") from error
    return state if isinstance(state, dict) else {}


def _given(state: Mapping[str, Any]) -> frozenset[int]:
    """The CPUs that are assigned to containers exclusively. Raises ValueError.

    The entries are by pod, then by container; before Kubernetes 1.18, by container only.
    """
    entries = state.get("entries") or {}
    if not isinstance(entries, dict):
        raise ValueError("entries of cpu_manager_state is not an object")
    pods = (pod if isinstance(pod, dict) else {"": pod} for pod in entries.values())
    return frozenset().union(*(cpulist.parse(str(cpus)) for pod in pods for cpus in pod.values()))
