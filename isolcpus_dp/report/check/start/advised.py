"""Values for the kubelet's settings that the kubelet accepts on this machine.

Pure functions: what `check` advises is what a configuration should contain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine


# With more NUMA nodes, a topology manager policy needs max-allowable-numa-nodes
# (pkg/kubelet/cm/topologymanager/topology_manager.go).
NODES_WITHOUT_OPTION = 8
# The kubelet enumerates the sets of NUMA nodes when it admits a pod: 65536 sets of 16 nodes. With
# many more nodes, an admission takes minutes.
_MOST_NODES = 16


class TopologyPolicy(NamedTuple):
    """A topology manager policy, and the value of max-allowable-numa-nodes if it is needed."""

    policy: str
    max_nodes: int | None


def reserved_cpus(machine: Machine, reserved: frozenset[int]) -> frozenset[int]:
    """For reservedSystemCPUs: the isolated CPUs and those that are reserved now, if online.

    Never empty: without any, it is the first online CPU.
    """
    wanted = (machine.isolated | reserved) & machine.online
    return wanted or frozenset(sorted(machine.online)[:1])


def topology_policy(nodes: int) -> TopologyPolicy:
    """The policy for a machine with this many NUMA nodes, those without CPUs included."""
    if nodes <= NODES_WITHOUT_OPTION:
        return TopologyPolicy("best-effort", None)
    if nodes <= _MOST_NODES:
        return TopologyPolicy("best-effort", nodes)
    return TopologyPolicy("none", None)


def cpu_manager_options(options: dict[str, str]) -> dict[str, str]:
    """cpuManagerPolicyOptions that also keep the shared pool off the reserved CPUs."""
    return {**options, "strict-cpu-reservation": "true"}
