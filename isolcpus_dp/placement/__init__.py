"""Which CPUs of a pool a container should get: plain functions over a Machine.

Of all choices the one that is least by a stated rule, found exactly. Of the available CPUs A, a
choice S of the wanted size, with all that must be in it, is least in this order:

1. NUMA nodes touched; among equally many, the sum of the distances between them
2. last-level caches touched
3. packed: cores touched; spread: cores with two or more threads in S
4. packed: cores broken, of which S takes some but not all of the threads in A;
   spread: threads of S on a core that has a thread outside A, somebody else's
5. CPUs of A left over in the touched NUMA nodes, then in the touched caches
6. the CPU numbers, compared as sorted lists

How it is found, by module:

- `nodes`: a choice is on as few NUMA nodes as can hold it. That limits how many of its CPUs can be
  on any group of nodes.
- `groups`: nodes are grouped by their distances, up to the whole machine.
- `cores`: what 0, 1, 2... CPUs of a node cost, by its caches and cores.
- `tables`: the costs of two parts make those of both.
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
    """`size` CPUs of `available`, all of `must_include` among them.

    Expects must_include within available and len(must_include) <= size <= len(available).

    The time grows with the square of the CPUs at worst, and with the square of the NUMA nodes if
    their distances make groups: of equals, or of groups. It is the caller's event loop that waits.
    So there is a limit to searching where they do not: see `search`. Only machines with more than
    twenty parts at irregular distances reach it, or with caches and cores across many nodes.
    Beyond it the result is the best choice that was found in half a second, on as few nodes as can
    be.

    Exact on machines where a core's threads share their last-level cache, or where all that share
    a cache are threads of one core, as where the kernel tells no caches. Others are a hypervisor's
    mistake; there a better choice by 2. to 6. may exist.
    """
    nodes = Nodes(machine, available, must_include, size)
    costs = Costs(machine, available, must_include, size, placement, nodes.spare)
    table = Totals(nodes, costs).tables(whole_machine(nodes))[nodes.fewest]
    return costs.choice(table.costs[size - table.first])
