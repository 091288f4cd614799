"""The sections, their keys, and the configuration that they form.

A key is declared once, as a field of a dataclass; `KEYS` is derived from the fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from isolcpus_dp.config.values import (
    COUNT,
    CPUS,
    DEVICE,
    DIRECTORY,
    LISTEN,
    NODES,
    PACKAGES,
    RESOURCE_NAME,
    YES_OR_NO,
    Count,
    Listen,
    Value,
    choice,
)

PLUGIN, PINNING, METRICS, KUBELET = "Plugin", "Pinning", "Metrics", "Kubelet"

CoreType = Literal["performance", "efficient"]
Granularity = Literal["cpu", "core"]
Threads = Literal["all", "one"]
IncompleteCores = Literal["withhold", "offer"]
Placement = Literal["packed", "spread"]
DeviceNodes = Literal["auto", "yes", "no"]
MemoryNodes = Literal["any", "local"]
CPUQuota = Literal["unlimited", "keep"]


def key(
    name: str,
    default: str,
    value: Value,
    *,
    needs: Mapping[str, str] | None = None,
    required: bool = False,
) -> Any:
    """A dataclass field that a file can set; the arguments are the fields of Key."""
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
    """One resource: a [Plugin] or [Pool NAME] section."""

    section: str = PLUGIN  # "Plugin", or "Pool NAME"
    resource_name: str = key("ResourceName", "windriver.com/isolcpus", RESOURCE_NAME, required=True)
    # None: all isolated CPUs that are in no other pool.
    cpus: frozenset[int] | None = key("CPUs", "isolated", CPUS)
    # These select from the CPUs above; None selects all.
    numa_nodes: frozenset[int] | None = key("NUMANodes", "", NODES)
    packages: frozenset[int] | None = key("Packages", "", PACKAGES)
    core_type: CoreType | None = key("CoreType", "", choice(CoreType))
    near: str | None = key("Near", "", DEVICE)  # a PCI address or a network interface
    count: Count | None = key("Count", "", COUNT)
    granularity: Granularity = key("Granularity", "cpu", choice(Granularity))
    threads: Threads = key("Threads", "all", choice(Threads), needs={"one": "Granularity=core"})
    # Whether the rest of a core is offered if one of its threads cannot be allocated.
    incomplete_cores: IncompleteCores = key(
        "IncompleteCores",
        "withhold",
        choice(IncompleteCores),
        needs={"offer": "Granularity=core"},
    )
    placement: Placement = key("Placement", "packed", choice(Placement))
    # Owners may also run on the housekeeping CPUs.
    mixed: bool = key("Mixed", "no", YES_OR_NO)
    # Not "auto": the kubelet stores the device nodes of an allocation, and cannot restart the
    # container when one of them is gone.
    device_nodes: DeviceNodes = key("DeviceNodes", "no", choice(DeviceNodes))

    @property
    def by_attribute(self) -> bool:
        """Whether it depends on the machine which CPUs are in the pool, not only on CPUs=."""
        return any(
            value is not None
            for value in (self.numa_nodes, self.packages, self.core_type, self.near, self.count)
        )

    @property
    def endpoint(self) -> str:
        """The name of the plugin's socket in the kubelet's directory."""
        return f"{self.resource_name.replace('/', '-')}.sock"


@dataclass(frozen=True)
class PinningConfig:
    """How the pinning daemon confines containers."""

    keep_others_off: bool = key("KeepOthersOff", "yes", YES_OR_NO)
    memory_nodes: MemoryNodes = key("MemoryNodes", "any", choice(MemoryNodes))
    cpu_quota: CPUQuota = key("CPUQuota", "unlimited", choice(CPUQuota))


@dataclass(frozen=True)
class KubeletConfig:
    """Where the kubelet is, if that cannot be seen."""

    root: Path | None = key("RootDirectory", "", DIRECTORY)  # None: as the running kubelet says


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    pools: tuple[PoolConfig, ...] = (PoolConfig(),)  # [Plugin] is the first
    pinning: PinningConfig = PinningConfig()
    kubelet: KubeletConfig = KubeletConfig()
    metrics: Listen | None = key("Listen", "", LISTEN)  # where to serve them; None: nowhere

    @property
    def devices(self) -> frozenset[str]:
        """The devices near which pools are: PCI addresses and network interfaces."""
        return frozenset(pool.near for pool in self.pools if pool.near is not None)


class Key(NamedTuple):
    """A key of the configuration file and the field that it sets."""

    field: str
    name: str  # its spelling in a file
    default: str  # as written in a file; empty: no value
    value: Value
    needs: Mapping[str, str]  # by value: the assignment that this value needs
    required: bool  # a [Pool NAME] section must have a value of its own


def _keys(config: type) -> dict[str, Key]:
    """The keys of a dataclass, by name."""
    declared = [Key(one.name, **one.metadata) for one in fields(config) if one.metadata]
    return {key.name: key for key in declared}


# By section and name. [Pool NAME] sections have the keys of [Plugin].
KEYS = {
    PLUGIN: _keys(PoolConfig),
    PINNING: _keys(PinningConfig),
    METRICS: _keys(Config),
    KUBELET: _keys(KubeletConfig),
}
