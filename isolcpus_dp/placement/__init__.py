"""Which CPUs of a pool a container should get: plain functions over a Machine.

A choice is a set S of the requested size, taken from the available CPUs A, with all CPUs that must
be included. The best choice is found exactly. It has the lowest of these values, compared in this
order:

1. the number of NUMA nodes used; then the sum of the distances between them
2. the number of last-level caches used
3. packed: the number of cores used; spread: the number of cores with two or more threads in S
4. packed: the number of cores split, with some but not all of their threads in A taken;
   spread: the number of threads in S on cores that also have threads outside A
5. the CPUs of A that remain in the NUMA nodes used, then in the caches used
6. the CPU numbers, compared as sorted lists

How the modules find it:

- `nodes`: a choice uses the smallest number of NUMA nodes that can hold it. This limits how many of
  its CPUs can be on any group of nodes.
- `groups`: groups the nodes by their distances, up to the whole machine.
- `cores`: the cost of 0, 1, 2... CPUs of a node, from its caches and cores.
- `tables`: joins the costs of two parts.
- `totals`: the costs of groups, up to the whole machine.
- `search`: the same for nodes at irregular distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isolcpus_dp.placement.cores import Costs
from isolcpus_dp.placement.groups import whole_machine
from isolcpus_dp.placement.nodes import Nodes
from isolcpus_dp.placement.totals import Totals

if TYPE_CHECKING:
    from isolcpus_dp.config import Placement
    from isolcpus_dp.host.machine import Machine


def choose(
    machine: Machine,
    available: frozenset[int],
    must_include: frozenset[int],
    size: int,
    placement: Placement = "packed",
) -> frozenset[int]:
    """`size` CPUs of `available`, including all of `must_include`.

    Expects must_include within available and len(must_include) <= size <= len(available).

    In the worst case the time grows with the square of the number of CPUs. It also grows with the
    square of the number of NUMA nodes, if their distances form groups. If they do not, the nodes
    are searched. The search has a limit, because the caller's event loop waits for it: see
    `search`. Only machines with more than twenty parts at irregular distances, or with caches and
    cores across many nodes, reach the limit. Then the result is the best choice found in half a
    second, on the smallest number of nodes.

    The result is exact if the threads of a core share their last-level cache, or if all CPUs that
    share a cache are threads of one core, as on hosts without cache information. Other topologies
    are errors of a hypervisor; there a choice that is better by 2. to 6. may exist.
    """
    nodes = Nodes(machine, available, must_include, size)
    costs = Costs(machine, available, must_include, size, placement, nodes.spare)
    table = Totals(nodes, costs).tables(whole_machine(nodes))[nodes.fewest]
    return costs.choice(table.costs[size - table.first])
