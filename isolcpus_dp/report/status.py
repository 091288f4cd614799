"""`isolcpus-dp status`: free CPUs, owned CPUs with their owners, and the state of the daemons."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.pool import attributes
from isolcpus_dp.service import units

if TYPE_CHECKING:
    from isolcpus_dp.pool import Pool
    from isolcpus_dp.report.snapshot import Owner, Snapshot

SERVICES = (units.PLUGIN, units.PIN)

# By a unit's name: its properties. Raises OSError without systemd.
ShowUnit = Callable[[str], Mapping[str, str]]


# Where systemctl is. With sudo or su, PATH may be that of another user.
_PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
_PROPERTIES = (
    "Id,LoadState,ActiveState,StatusText,ExecMainStartTimestampMonotonic,Type,Before,After,"
    "ExecStart"
)


@dataclass(frozen=True)
class Service:
    """The state of a daemon's unit, from systemd."""

    unit: str
    state: str  # active, inactive, failed…; not installed; unknown
    says: str  # its last STATUS= (sd_notify(3))


def show_unit(unit: str) -> Mapping[str, str]:
    """The properties of a unit, from systemd; works without root.

    Raises OSError, and TimeoutExpired after 5 s.
    """
    shown = subprocess.run(
        ["systemctl", "show", f"--property={_PROPERTIES}", unit],
        capture_output=True,
        text=True,
        timeout=5,
        check=False,
        env={**os.environ, "PATH": _PROGRAMS},
    )
    if shown.returncode != 0:
        raise OSError((shown.stderr.strip() or "systemctl failed").splitlines()[0])
    # Not splitlines(): a status may contain other characters that it takes for the end of a line.
    return dict(line.split("=", 1) for line in shown.stdout.split("\n") if "=" in line)


@dataclass(frozen=True)
class Status:
    """A snapshot and the daemons' units."""

    snapshot: Snapshot
    services: tuple[Service, ...]
    unseen: tuple[str, ...]

    @property
    def registered(self) -> bool | None:
        """Whether all resources are registered with a kubelet; None if it is unknown."""
        plugin = next(service for service in self.services if service.unit == units.PLUGIN)
        if plugin.state == "unknown":
            return None
        return plugin.state == "active" and plugin.says.startswith("Registered")

    @property
    def well(self) -> bool:
        """Whether all resources are registered and all devices healthy."""
        unhealthy = any(pool.unhealthy for pool in self.snapshot.pools)
        return bool(self.registered) and not unhealthy


def look(snapshot: Snapshot, show: ShowUnit = show_unit) -> Status:
    """Adds the state of the daemons to a snapshot."""
    services, unseen = [], list(snapshot.unseen)
    for unit in SERVICES:
        try:
            shown = show(unit)
        except (OSError, subprocess.TimeoutExpired) as error:
            services.append(Service(unit, "unknown", ""))
            sentence = f"state of the daemons: {error}"
            unseen += [] if sentence in unseen else [sentence]
            continue
        absent = shown.get("LoadState") == "not-found"
        state = "not installed" if absent else shown.get("ActiveState", "unknown")
        services.append(Service(unit, state, shown.get("StatusText", "")))
    return Status(snapshot, tuple(services), tuple(unseen))


def as_text(status: Status) -> str:
    """The report as text for an operator."""
    lines = []
    for pool in status.snapshot.pools:
        counts = "  ".join(
            f"{name} {'?' if cpus is None else len(cpus)}"
            for name, cpus in _counts(status, pool).items()
        )
        unknown = {owner: _unknown(pool, owner) for owner in status.snapshot.owners}
        count = sum(map(len, unknown.values()))
        lines.append(
            f"{pool.resource_name}: CPUs {counts}" + (f"  not in the pool {count}" if count else "")
        )
        if len(status.snapshot.pools) > 1 or pool.config.by_attribute:
            lines.append(_selected(status, pool))
        lines += [
            f"  unhealthy: device {device_id}: {reason}"
            for device_id, reason in _reasons(pool).items()
        ]
        for owner in status.snapshot.owners:
            if owner.allocation.resource == pool.resource_name:
                lines.append(f"  {cpulist.render(owner.cpus):16} {owner.allocation}")
            if unknown[owner]:
                lines.append(f"  {'':16} not in the pool: device {', '.join(unknown[owner])}")
        lines += [f"  note: {warning}" for warning in pool.warnings]
    lines.append("")
    for service in status.services:
        lines.append(f"{service.unit:24} {service.state:8} {service.says}".rstrip())
    registered = {True: "with the kubelet", False: "no", None: "unknown"}[status.registered]
    lines.append(f"registered: {registered}")
    lines += [f"unknown: {sentence}" for sentence in status.unseen]
    return "\n".join(map(files.printable, lines))


def as_json(status: Status) -> str:
    """Machine-readable output, described in docs/status.schema.json."""
    document: dict[str, Any] = {
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
                "reasons": _reasons(pool),
                "unknown": [
                    device_id
                    for owner in status.snapshot.owners
                    for device_id in _unknown(pool, owner)
                ],
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
    return json.dumps(document, indent=2)


def _selected(status: Status, pool: Pool) -> str:
    """The CPUs of a pool, and what selects them."""
    cpus = cpulist.render(_counts(status, pool)["isolated"] or ())
    selection = attributes.selection(pool.config)
    return f"  CPUs {cpus or '(none)'}" + (f", selected by {selection}" if selection else "")


def _counts(status: Status, pool: Pool) -> dict[str, frozenset[int] | None]:
    """By state: the CPUs of a pool; None if the kubelet could not be asked."""
    isolated = frozenset().union(*(device.core for device in pool.devices.values()))
    healthy = pool.cpus_of(device.id for device in pool.devices.values() if device.healthy)
    owned = status.snapshot.allocated(pool)
    # Without the CPUs of devices that the pool does not have any more.
    allocated = None if owned is None else owned & isolated
    return {
        "isolated": isolated,
        "healthy": healthy,
        "allocated": allocated,
        "free": None if allocated is None else healthy - allocated,
    }


def _reasons(pool: Pool) -> dict[str, str]:
    """By id of an unhealthy device: the reason."""
    return {device_id: pool.devices[device_id].reason for device_id in pool.unhealthy}


def _unknown(pool: Pool, owner: Owner) -> list[str]:
    """The devices of the pool's resource that the owner holds but the pool does not have.

    A reload may have removed them from the pool, or their CPUs are not offered any more.
    """
    if owner.allocation.resource != pool.resource_name:
        return []
    return [device_id for device_id in owner.allocation.ids if device_id not in pool.devices]
