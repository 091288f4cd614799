"""What the kubelet is configured to do with the CPUs, and what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import paths
from isolcpus_dp.report.check.finding import Finding, ok, problem, warning
from isolcpus_dp.report.check.start import advised, change, cpu_state, facts, table, values

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host


def reserved_cpus(host: Host) -> Finding:
    """Whether the kubelet excludes the isolated CPUs that are online from the resource cpu."""
    known = facts.read(host, states=False)
    refused = table.refused(known, "reserved-cpus")
    text = values.text(known.settings, "reservedSystemCPUs", "not set")
    missing = host.isolated - known.reserved
    if refused and not missing:
        return refused
    if missing:
        reason = f"isolated CPU {render(missing)} also counts as the resource cpu"
        before = f"{refused.evidence}; " if refused else f"reservedSystemCPUs is {text}: "
        return problem(before + reason, change.reserve_advice(known))
    return ok(f"reservedSystemCPUs is {text}; no isolated CPU is missing")


def cpu_manager(host: Host) -> Finding:
    """The CPU manager's policy, and the isolated CPUs that its state file assigns."""
    known = facts.read(host)
    refused = table.refused(known, "cpu-manager")
    if refused:
        return refused
    state_file = paths.cpu_manager_state(known.directory)
    if known.cpu_state is None:
        raise Unseen(paths.missing(state_file))
    policy, state = known.cpu_policy, cpu_state.read(known)
    given = state.given & host.machine.isolated if state else frozenset()
    if given:
        return problem(
            f"the CPU manager gave isolated CPU {render(given)} to containers as cpu",
            f"Set reservedSystemCPUs (see the check reserved-cpus). {cpu_state.remove(known)}",
        )
    shared = state.shared & host.machine.isolated if state else frozenset()
    if policy == "static" and shared:
        options = change.strict(known).settings["cpuManagerPolicyOptions"]
        return warning(
            f"the CPU manager lets all other containers run on isolated CPU {render(shared)}",
            "Run isolcpus-dp-pin, which keeps them off these CPUs. To make the kubelet do so as"
            " well (Kubernetes 1.33 and newer), set cpuManagerPolicyOptions:"
            f" {change.mapping(options)}. {cpu_state.remove(known)}",
        )
    return ok(f"policy {policy}; {state_file} gives no isolated CPU to a container")


def topology_manager(host: Host) -> Finding:
    """The topology manager's policy on a host with several NUMA nodes."""
    known = facts.read(host, states=False)
    refused = table.refused(known, "topology-manager")
    if refused:
        return refused
    policy = known.topology_policy
    nodes = {cpu.node for cpu in host.machine.cpus.values() if cpu.node is not None}
    if policy != "none" or len(nodes) < 2:
        return ok(f"policy {policy}, NUMA nodes: {known.domains}")
    if advised.topology_policy(known.domains).policy == "none":
        return ok(
            f"policy none: on {known.domains} NUMA nodes, the kubelet does not start with another"
            " policy unless max-allowable-numa-nodes is set, and may then need minutes for each pod"
        )
    return warning(
        f"policy none on {len(nodes)} NUMA nodes: a container's CPUs, devices and memory may be on"
        " different nodes",
        change.align_advice(known),
    )
