"""For each check: which parts of a plan make it ok, and how; or why no part can.

A test fails if a check is added without an entry. docs/plan.md shows this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Coverage:
    """What a plan does for a check."""

    parts: tuple[str, ...]  # the names of parts; empty if no part does anything for it
    how: str  # what the parts write; or why none does


COVERAGE: Mapping[str, Coverage] = MappingProxyType(
    {
        "kernel-arguments": Coverage(("kernel",), "isolcpus= with the flag managed_irq"),
        "nohz-full": Coverage(("kernel",), "nohz_full="),
        "rcu-nocbs": Coverage(("kernel",), "rcu_nocbs="),
        "smt-siblings": Coverage(
            ("kernel",),
            "the isolated CPUs are whole cores; cores with two owners are up to Granularity=core",
        ),
        "irq-affinity": Coverage(
            ("kernel", "tuning"),
            "irqaffinity=, and the same mask at boot; TuneD also moves existing interrupts",
        ),
        "irq-counts": Coverage(
            ("kernel", "tuning"),
            "what irq-affinity and nohz-full have written; the check measures the result",
        ),
        "irqbalance": Coverage(
            ("tuning",), "a drop-in of its unit unsets its lists of banned CPUs"
        ),
        "workqueues": Coverage(("kernel", "tuning"), "nohz_full=, and the same mask at boot"),
        "kernel-threads": Coverage(
            ("kernel", "tuning"),
            "nohz_full=; TuneD also moves threads that choose their CPUs, such as kswapd",
        ),
        "foreign-processes": Coverage(
            ("systemd", "runtime"),
            "AllowedCPUs= for processes of the host; NRI, with which isolcpus-dp-pin moves"
            " containers",
        ),
        "watchdog": Coverage(("kernel", "tuning"), "nohz_full=, and kernel.watchdog_cpumask"),
        "timers": Coverage(
            ("tuning",), "kernel.timer_migration; the clock source depends on the hardware"
        ),
        "cpu-frequency": Coverage(("tuning",), "scaling_governor of each isolated CPU"),
        "idle-states": Coverage(("tuning",), "pm_qos_resume_latency_us of each isolated CPU"),
        "huge-pages": Coverage(("kernel",), "transparent_hugepage="),
        "numa-balancing": Coverage(("tuning",), "kernel.numa_balancing"),
        "reserved-cpus": Coverage(("kubelet",), "reservedSystemCPUs"),
        "cpu-manager": Coverage(
            ("kubelet",), "cpuManagerPolicy with strict-cpu-reservation, and a new state file"
        ),
        "topology-manager": Coverage(("kubelet",), "topologyManagerPolicy"),
        "kubelet-start": Coverage(("kubelet",), "only values that the kubelet accepts"),
        "static-pods": Coverage((), "it depends on the manifests of the pods"),
        "unit-order": Coverage((), "the package of isolcpus-dp has the generator that orders it"),
        "cpu-quota": Coverage(("runtime",), "NRI, with which isolcpus-dp-pin removes the quota"),
        "nri": Coverage(("runtime",), "NRI is enabled where it is off by default"),
        "pin-daemon": Coverage((), "the package isolcpus-dp-pin has the unit and starts it"),
        "versions": Coverage((), "the reboot after the plan starts the daemons again"),
    }
)
