"""What the kubelet was told about CPUs: its file of configuration, and its command line.

The command line wins, as it does with the kubelet.
"""

from __future__ import annotations

import contextlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.kubelet import paths
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, problem, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# Flags that are keys of the file, too.
_FLAGS = {
    "reserved-cpus": "reservedSystemCPUs",
    "cpu-manager-policy": "cpuManagerPolicy",
    "topology-manager-policy": "topologyManagerPolicy",
}

_MOST_BYTES = 1 << 20  # of a file of configuration


def reserved_cpus(host: Host) -> Finding:
    """Whether the kubelet leaves the isolated CPUs out of what it counts as cpu."""
    said = str(_settings(host).get("reservedSystemCPUs") or "")
    isolated = host.machine.isolated & host.machine.present
    left = isolated - cpulist.parse(said)
    if left:
        return problem(
            f"reservedSystemCPUs is {said or 'not set'}: the scheduler hands out isolated CPU"
            f" {render(left)} as cpu, too",
            f"In the kubelet's configuration: reservedSystemCPUs:"
            f' "{render(cpulist.parse(said) | isolated)}"; list housekeeping CPUs for the system'
            " with them.",
        )
    return ok(f"reservedSystemCPUs is {said or 'not set'}, and leaves no isolated CPU out")


def cpu_manager(host: Host) -> Finding:
    """The policy of the CPU manager, and whom its state file gives isolated CPUs."""
    settings = _settings(host)
    policy = str(settings.get("cpuManagerPolicy") or "none").lower()
    state_file = paths.cpu_manager_state(host.roots.kubelet_dir)
    state = _state(state_file)
    told = str(state.get("policyName", policy)).lower()
    if told != policy:
        return problem(
            f"the policy is {policy}, but cpu_manager_state is of policy {told}: the kubelet does"
            " not start with it",
            f"Drain the node, stop the kubelet, remove {state_file}.",
        )
    given = _given(state) & host.machine.isolated
    if given:
        return problem(
            f"the CPU manager gave isolated CPU {render(given)} to containers as cpu",
            "Set reservedSystemCPUs (see reserved-cpus), drain the node, stop the kubelet, and"
            f" remove {state_file}.",
        )
    shared = cpulist.parse(str(state.get("defaultCpuSet") or "")) & host.machine.isolated
    if policy == "static" and shared:
        return warning(
            f"the CPU manager lets all other containers run on isolated CPU {render(shared)}",
            "isolcpus-dp-pin keeps them off in any case. For the kubelet to do so, too: drain the"
            f" node, stop the kubelet, remove {state_file}, and set"
            ' cpuManagerPolicyOptions: {strict-cpu-reservation: "true"}, which Kubernetes has since'
            " 1.32.",
        )
    return ok(f"policy {policy}, no isolated CPU in its state")


def topology_manager(host: Host) -> Finding:
    """The policy of the topology manager, where there is more than one NUMA node."""
    policy = str(_settings(host).get("topologyManagerPolicy") or "none").lower()
    nodes = {cpu.node for cpu in host.machine.cpus.values() if cpu.node is not None}
    if policy == "none" and len(nodes) > 1:
        return warning(
            f"policy none on {len(nodes)} NUMA nodes: CPUs, devices and memory of a container may"
            " lie on different ones",
            "In the kubelet's configuration: topologyManagerPolicy: best-effort, or stricter.",
        )
    return ok(f"policy {policy}, NUMA nodes: {len(nodes) or 1}")


def _settings(host: Host) -> Mapping[str, Any]:
    """The kubelet's configuration. Raises Unseen."""
    flags = _flags(host)
    file = Path(flags.get("config", str(host.roots.kubelet_dir / "config.yaml")))
    settings: dict[str, Any] = _yaml(file)
    folder = Path(flags["config-dir"]) if "config-dir" in flags else None
    for name in files.names(folder) if folder else []:
        if folder and name.endswith(".conf"):
            settings.update(_yaml(folder / name))
    settings.update({key: flags[flag] for flag, key in _FLAGS.items() if flag in flags})
    if not settings and not flags:
        raise files.Unseen(f"there is no {file}, and no kubelet that names another one")
    return settings


def _flags(host: Host) -> Mapping[str, str]:
    """What the running kubelet was started with: --name=value and --name value."""
    pid = host.daemon("kubelet", host.threads)
    words = files.text(host.roots.proc / str(pid) / "cmdline").split("\0") if pid else []
    flags = {}
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            flags[name.lstrip("-")] = value if equals else following
    return flags


def _yaml(file: Path) -> dict[str, Any]:
    """The keys of a file; none if it is not there. Raises Unseen."""
    # What it is called comes from a command line. Why it may not be looked at is told below.
    with contextlib.suppress(OSError):
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES):
            raise files.Unseen(f"{file} is no file of at most {_MOST_BYTES >> 20} MiB")
    text = files.text(file)
    if not text:
        return {}
    try:
        import yaml  # of all that an operator looks at, only this needs it
    except ImportError:
        raise files.Unseen(f"{file} needs PyYAML to be read: install python3-yaml") from None
    try:
        said = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise files.Unseen(f"{file} is no YAML: {reason}") from error
    return said if isinstance(said, dict) else {}


def _state(file: Path) -> Mapping[str, Any]:
    """The CPU manager's checkpoint; nothing if there is none. Raises Unseen."""
    try:
        said = json.loads(files.text(file) or "{}")
    except ValueError as error:
        raise files.Unseen(f"{file} is no JSON: {error}") from error
    return said if isinstance(said, dict) else {}


def _given(state: Mapping[str, Any]) -> frozenset[int]:
    """The CPUs that containers have for themselves: by pod, then by container.

    Kubelets before 1.18 had containers only. Raises ValueError.
    """
    entries = state.get("entries") or {}
    if not isinstance(entries, dict):
        raise ValueError("the entries of cpu_manager_state are no object")
    pods = (pod if isinstance(pod, dict) else {"": pod} for pod in entries.values())
    return frozenset().union(*(cpulist.parse(str(cpus)) for pod in pods for cpus in pod.values()))
