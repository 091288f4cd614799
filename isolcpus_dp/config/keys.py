"""What the administrator can say: the sections, their keys, and the configuration they make.

A key is declared once, with the field that holds its value; `KEYS` is derived from the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from isolcpus_dp.config.values import CPUS, LISTEN, RESOURCE_NAME, YES_OR_NO, Listen, Value, choice

PLUGIN, PINNING, METRICS = "Plugin", "Pinning", "Metrics"

Granularity = Literal["cpu", "core"]
Threads = Literal["all", "one"]
Placement = Literal["packed", "spread"]
DeviceNodes = Literal["auto", "yes", "no"]
MemoryNodes = Literal["any", "local"]
CPUQuota = Literal["unlimited", "keep"]


def key(
    name: str,
    default: str,
    value: Value,
    needs: Mapping[str, str] | None = None,
    required: bool = False,
) -> Any:
    """A dataclass field that a file sets; the arguments are those of Key."""
    return field(
        default=value.parse(default, 0) if default else None,
        metadata={
            "name": name,
            "default": default,
            "value": value,
            "needs": needs or {},
            "required": required,
        },
    )


@dataclass(frozen=True)
class PoolConfig:
    """What is said about one resource."""

    section: str = PLUGIN  # where it is said: Plugin, or Pool and a name
    resource_name: str = key("ResourceName", "windriver.com/isolcpus", RESOURCE_NAME, required=True)
    # None: all that are isolated and in no other pool.
    cpus: frozenset[int] | None = key("CPUs", "isolated", CPUS, required=True)
    granularity: Granularity = key("Granularity", "cpu", choice(Granularity))
    threads: Threads = key("Threads", "all", choice(Threads), needs={"one": "Granularity=core"})
    placement: Placement = key("Placement", "packed", choice(Placement))
    # The owner may also use the housekeeping CPUs.
    mixed: bool = key("Mixed", "no", YES_OR_NO)
    device_nodes: DeviceNodes = key("DeviceNodes", "auto", choice(DeviceNodes))

    @property
    def endpoint(self) -> str:
        """The name of the plugin's socket in the kubelet's folder."""
        return f"{self.resource_name.replace('/', '-')}.sock"


@dataclass(frozen=True)
class PinningConfig:
    """What is said about the CPUs that containers may run on."""

    keep_others_off: bool = key("KeepOthersOff", "yes", YES_OR_NO)
    memory_nodes: MemoryNodes = key("MemoryNodes", "any", choice(MemoryNodes))
    cpu_quota: CPUQuota = key("CPUQuota", "unlimited", choice(CPUQuota))


@dataclass(frozen=True)
class Config:
    """All that the administrator can say; [Plugin] is the first of the pools."""

    pools: tuple[PoolConfig, ...] = (PoolConfig(),)
    pinning: PinningConfig = PinningConfig()
    metrics: Listen | None = key("Listen", "", LISTEN)  # where they are served


class Key(NamedTuple):
    """How a file sets a field of the configuration."""

    field: str
    name: str  # as a file spells it
    default: str  # as a file would assign it; empty for none
    value: Value
    needs: Mapping[str, str]  # by value: the assignment of another key that it needs
    required: bool  # every [Pool NAME] must have a value of its own


def _keys(config: type) -> dict[str, Key]:
    """The keys of a configuration's fields, by name."""
    declared = [Key(one.name, **one.metadata) for one in fields(config) if one.metadata]
    return {key.name: key for key in declared}


# By section and name. A [Pool NAME] has the keys of [Plugin].
KEYS = {PLUGIN: _keys(PoolConfig), PINNING: _keys(PinningConfig), METRICS: _keys(Config)}
