"""`isolcpus-dp status`: which CPUs are free, who owns the others, and whether the daemons work."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import cpulist
from isolcpus_dp.service import units

if TYPE_CHECKING:
    from isolcpus_dp.pool import Pool
    from isolcpus_dp.report.snapshot import Snapshot

SERVICES = (units.PLUGIN, units.PIN)

# Asks for properties of a unit. Raises OSError where there is no systemd.
ShowUnit = Callable[[str], Mapping[str, str]]


_PROPERTIES = "LoadState,ActiveState,StatusText,ExecMainStartTimestampMonotonic"


@dataclass(frozen=True)
class Service:
    """A daemon's unit, as systemd sees it."""

    unit: str
    state: str  # active, inactive, failed…; not installed; unknown
    says: str  # the STATUS= that it told systemd last


def show_unit(unit: str) -> Mapping[str, str]:
    """What systemd says of a unit; needs no rights. Raises OSError."""
    shown = subprocess.run(
        ["systemctl", "show", f"--property={_PROPERTIES}", unit],
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
    )
    if shown.returncode != 0:
        raise OSError((shown.stderr.strip() or "systemctl failed").splitlines()[0])
    return dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)


@dataclass(frozen=True)
class Status:
    """All that there is to tell."""

    snapshot: Snapshot
    services: tuple[Service, ...]
    unseen: tuple[str, ...]

    @property
    def registered(self) -> bool | None:
        """Whether all resources are registered with a kubelet; None if nobody tells."""
        says = next(service for service in self.services if service.unit == units.PLUGIN)
        if says.state == "unknown":
            return None
        return says.state == "active" and says.says.startswith("Registered")

    @property
    def well(self) -> bool:
        """Whether an operator need not look closer."""
        unhealthy = any(pool.unhealthy for pool in self.snapshot.pools)
        return bool(self.registered) and not unhealthy


def look(snapshot: Snapshot, show: ShowUnit = show_unit) -> Status:
    """Adds to a snapshot what systemd says of the daemons."""
    services, unseen = [], list(snapshot.unseen)
    for unit in SERVICES:
        try:
            shown = show(unit)
        except (OSError, subprocess.TimeoutExpired) as error:
            services.append(Service(unit, "unknown", ""))
            sentence = f"the daemons' units: {error}"
            unseen += [] if sentence in unseen else [sentence]
            continue
        absent = shown.get("LoadState") == "not-found"
        state = "not installed" if absent else shown.get("ActiveState", "unknown")
        services.append(Service(unit, state, shown.get("StatusText", "")))
    return Status(snapshot, tuple(services), tuple(unseen))


def as_text(status: Status) -> str:
    """For an operator's eyes."""
    lines = []
    for pool in status.snapshot.pools:
        counts = "  ".join(
            f"{name} {'?' if cpus is None else len(cpus)}"
            for name, cpus in _counts(status, pool).items()
        )
        lines.append(f"{pool.resource_name}: CPUs {counts}")
        if pool.unhealthy:
            lines.append(f"  unhealthy: device {', '.join(pool.unhealthy)}")
        for owner in status.snapshot.owners:
            if owner.allocation.resource == pool.resource_name:
                lines.append(f"  {cpulist.render(owner.cpus):16} {owner.allocation}")
        lines += [f"  note: {warning}" for warning in pool.warnings]
    lines.append("")
    for service in status.services:
        lines.append(f"{service.unit:24} {service.state:8} {service.says}".rstrip())
    registered = {True: "with the kubelet", False: "no", None: "unknown"}[status.registered]
    lines.append(f"registered: {registered}")
    lines += [f"not seen: {sentence}" for sentence in status.unseen]
    return "\n".join(lines)


def as_json(status: Status) -> str:
    """For programs: docs/status.schema.json says what is in it."""
    found: dict[str, Any] = {
        "well": status.well,
        "registered": status.registered,
        "pools": [
            {
                "resource": pool.resource_name,
                "cpus": {
                    name: None if cpus is None else cpulist.render(cpus)
                    for name, cpus in _counts(status, pool).items()
                },
                "devices": len(pool.devices),
                "unhealthy": pool.unhealthy,
                "warnings": list(pool.warnings),
            }
            for pool in status.snapshot.pools
        ],
        "allocations": [
            {
                "resource": owner.allocation.resource,
                "namespace": owner.allocation.namespace,
                "pod": owner.allocation.pod,
                "container": owner.allocation.container,
                "cpus": cpulist.render(owner.cpus),
            }
            for owner in status.snapshot.owners
        ],
        "services": [
            {"unit": service.unit, "state": service.state, "says": service.says}
            for service in status.services
        ],
        "unseen": list(status.unseen),
    }
    return json.dumps(found, indent=2)


def _counts(status: Status, pool: Pool) -> dict[str, frozenset[int] | None]:
    """The CPUs of a pool by what is the matter with them; None is what could not be seen."""
    isolated = frozenset().union(*(device.core for device in pool.devices.values()))
    healthy = pool.of(device.id for device in pool.devices.values() if device.healthy)
    allocated = status.snapshot.allocated(pool)
    return {
        "isolated": isolated,
        "healthy": healthy,
        "allocated": allocated,
        "free": None if allocated is None else healthy - allocated,
    }
