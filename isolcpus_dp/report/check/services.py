"""The CPUs of the host's services: `check` advises them, `plan` writes them."""

from __future__ import annotations

from isolcpus_dp.host.cpulist import render

# The units that contain all processes of the host that are in no container: PID 1, services,
# sessions of users, and virtual machines.
UNITS = ("init.scope", "system.slice", "user.slice", "machine.slice")


def allowed(housekeeping: frozenset[int]) -> str:
    """The setting of such a unit."""
    return f"AllowedCPUs={render(housekeeping)}"
