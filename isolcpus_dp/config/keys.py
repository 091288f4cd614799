"""What the administrator can say: the sections, their keys, and the configuration they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from isolcpus_dp.config.values import Listen, cpus, listen, one_of, resource_name, yes_or_no

GRANULARITIES = ("cpu", "core")
THREADS = ("all", "one")
PLACEMENTS = ("packed", "spread")
DEVICE_NODES = ("auto", "yes", "no")
MEMORY_NODES = ("any", "local")
CPU_QUOTAS = ("unlimited", "keep")

PLUGIN, PINNING, METRICS = "Plugin", "Pinning", "Metrics"


@dataclass(frozen=True)
class PoolConfig:
    """What is said about one resource."""

    section: str = PLUGIN  # where it is said: Plugin, or Pool and a name
    resource_name: str = "windriver.com/isolcpus"
    cpus: frozenset[int] | None = None  # None: all that are isolated and in no other pool
    granularity: str = "cpu"  # one of GRANULARITIES
    threads: str = "all"  # one of THREADS
    placement: str = "packed"  # one of PLACEMENTS
    mixed: bool = False  # the owner may also use the housekeeping CPUs
    device_nodes: str = "auto"  # one of DEVICE_NODES

    @property
    def endpoint(self) -> str:
        """The name of the plugin's socket in the kubelet's folder."""
        return f"{self.resource_name.replace('/', '-')}.sock"


@dataclass(frozen=True)
class PinningConfig:
    """What is said about the CPUs that containers may run on."""

    keep_others_off: bool = True
    memory_nodes: str = "any"  # one of MEMORY_NODES
    cpu_quota: str = "unlimited"  # one of CPU_QUOTAS


@dataclass(frozen=True)
class Config:
    """All that the administrator can say; [Plugin] is the first of the pools."""

    pools: tuple[PoolConfig, ...] = (PoolConfig(),)
    pinning: PinningConfig = PinningConfig()
    metrics: Listen | None = None  # where they are served


class Key(NamedTuple):
    """One key: the field it fills, how its text is read, and what that accepts, in words."""

    field: str
    parse: Callable[[str, int], Any]  # text and the machine's last CPU; raises ValueError
    allowed: str


# Of [Plugin] and of every [Pool NAME].
KEYS = {
    "ResourceName": Key(
        "resource_name",
        resource_name,
        "a lower-case domain of at most 244 letters that is not kubernetes.io,"
        " a slash, and a name of at most 63 letters, digits, '-', '_' and '.',"
        " such as windriver.com/isolcpus",
    ),
    "CPUs": Key("cpus", cpus, "isolated, or a CPU list such as 2-3,6-7"),
    "Granularity": Key("granularity", one_of(*GRANULARITIES), "cpu or core"),
    "Threads": Key("threads", one_of(*THREADS), "all or one"),
    "Placement": Key("placement", one_of(*PLACEMENTS), "packed or spread"),
    "Mixed": Key("mixed", yes_or_no, "yes or no"),
    "DeviceNodes": Key("device_nodes", one_of(*DEVICE_NODES), "auto, yes or no"),
}

PINNING_KEYS = {
    "KeepOthersOff": Key("keep_others_off", yes_or_no, "yes or no"),
    "MemoryNodes": Key("memory_nodes", one_of(*MEMORY_NODES), "any or local"),
    "CPUQuota": Key("cpu_quota", one_of(*CPU_QUOTAS), "unlimited or keep"),
}

METRICS_KEYS = {
    "Listen": Key(
        "listen",
        listen,
        "an IP address and a port such as 127.0.0.1:9497, or the path of a unix socket",
    ),
}
