"""The plugin's own configuration: without one, it offers all isolated CPUs as one resource."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from isolcpus_dp import pool

if TYPE_CHECKING:
    from isolcpus_dp.config import Config
    from isolcpus_dp.plan.part import Goal, Target

from isolcpus_dp.plan.part import Part


def part(goal: Goal, _target: Target, config: Config) -> Part:
    """No file: which CPUs are isolated, the plugin reads from the kernel.

    Its notes are the warnings that the plugin will have about the configuration.
    """
    after = replace(goal.machine, isolated=goal.isolated)
    pools = pool.make(after, config)
    offered = "; ".join(f"{one.resource_name}: {len(one.devices)} devices" for one in pools)
    warnings = (f"{warning[0].upper()}{warning[1:]}." for one in pools for warning in one.warnings)
    return Part(
        "plugin",
        f"No change of the configuration is needed. After the reboot, it offers {offered}.",
        notes=tuple(warnings),
    )
