"""What the kubelet is configured to do with the CPUs, and what it did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.kubelet import paths
from isolcpus_dp.report.check import files, kubelet_settings
from isolcpus_dp.report.check.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host


def reserved_cpus(host: Host) -> Finding:
    """Whether the kubelet excludes the isolated CPUs from the resource cpu."""
    reserved = str(kubelet_settings.read(host).get("reservedSystemCPUs") or "")
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
    settings = kubelet_settings.read(host)
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
    policy = str(kubelet_settings.read(host).get("topologyManagerPolicy") or "none").lower()
    nodes = {cpu.node for cpu in host.machine.cpus.values() if cpu.node is not None}
    if policy == "none" and len(nodes) > 1:
        return warning(
            f"policy none on {len(nodes)} NUMA nodes: a container's CPUs, devices and memory may be"
            " on different nodes",
            "Set in the kubelet's configuration: topologyManagerPolicy: best-effort, or a stricter"
            " policy.",
        )
    return ok(f"policy {policy}, NUMA nodes: {len(nodes) or 1}")


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
