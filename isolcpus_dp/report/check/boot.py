"""The arguments that the kernel should be booted with: `check` advises them, `plan` writes them."""

from __future__ import annotations

from isolcpus_dp.host.cpulist import render_argument

# By name: whoever sets one of these should first remove what is there.
NAMES = ("isolcpus", "nohz_full", "rcu_nocbs", "irqaffinity", "transparent_hugepage")
HUGE_PAGES = "transparent_hugepage=madvise"
# Values of it that the check huge-pages accepts.
QUIET_HUGE_PAGES = ("madvise", "never")
# The kernel numbers the CPU on which it starts as 0.
BOOT_CPU = frozenset({0})


def isolcpus(isolated: frozenset[int]) -> str:
    """The flag managed_irq exists since Linux 5.6."""
    return isolcpus_as(render_argument(isolated))


def isolcpus_as(cpus: str) -> str:
    """The same with a list that is given as a text."""
    return f"isolcpus=nohz,domain,managed_irq,{cpus}"


def nohz_full(isolated: frozenset[int]) -> str:
    return f"nohz_full={render_argument(isolated)}"


def rcu_nocbs(isolated: frozenset[int]) -> str:
    return f"rcu_nocbs={render_argument(isolated)}"


def irqaffinity(housekeeping: frozenset[int]) -> str:
    return f"irqaffinity={render_argument(housekeeping)}"


def arguments(isolated: frozenset[int], housekeeping: frozenset[int]) -> tuple[str, ...]:
    """All of them, in the order of NAMES."""
    return (
        isolcpus(isolated),
        nohz_full(isolated),
        rcu_nocbs(isolated),
        irqaffinity(housekeeping),
        HUGE_PAGES,
    )
