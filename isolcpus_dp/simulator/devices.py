"""The simulated kubelet's choice of devices for a container, and its checkpoint of allocations."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

# Asks the plugin; arguments: the available ids, those that must be included, the number of ids.
Preference = Callable[[frozenset[str], frozenset[str], int], Awaitable[Iterable[str]]]


async def choose(
    free: frozenset[str],
    size: int,
    prefer: Preference | None,
    aligned: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """Chooses `size` of the `free` devices, as the kubelet's devicesToAllocate() does.

    `aligned` are the free devices on the topology manager's NUMA node. If there are more than
    `size`, the plugin is asked to choose among them; otherwise all of them are taken, and it is
    asked for the rest. Ids in its answer that were not offered are ignored. Missing ids are added
    in the order of a Go map, which is random. Expects size <= len(free).
    """
    offered, chosen = (aligned, frozenset[str]()) if size < len(aligned) else (free, aligned)
    if prefer and len(chosen) < size:
        answer = dict.fromkeys(await prefer(offered, chosen, size))
        fitting = [device for device in answer if device in offered - chosen]
        chosen |= frozenset(fitting[: size - len(chosen)])
    rest = sorted(offered - chosen)
    return chosen | frozenset(random.sample(rest, size - len(chosen)))


# The checkpoint has DeviceIDs by NUMA node; this is the key for devices without a node.
_NOWHERE = "-1"


@dataclass(frozen=True)
class Entry:
    """The devices of one resource that a pod's container holds, and the plugin's answer."""

    resource: str
    by_node: Mapping[str, frozenset[str]]  # ids, by NUMA node in decimal
    answer: bytes  # the plugin's ContainerAllocateResponse, reused when a container restarts
    container: str = "main"

    @property
    def ids(self) -> frozenset[str]:
        return frozenset().union(*self.by_node.values())


def by_node(nodes: Mapping[str, int | None]) -> dict[str, frozenset[str]]:
    """By NUMA node in decimal: the ids; `nodes` has the node of each id."""
    grouped: dict[str, set[str]] = {}
    for device, node in nodes.items():
        grouped.setdefault(_NOWHERE if node is None else str(node), set()).add(device)
    return {node: frozenset(ids) for node, ids in grouped.items()}


class Checkpoint:
    """The kubelet's file of allocations (kubelet_internal_checkpoint), read when it starts.

    It has the kubelet's format (pkg/kubelet/cm/devicemanager/checkpoint and pod_devices.go), except
    for the checksum, a hash of Go's rendering of the data, which is neither checked nor written.
    `registered` has the healthy ids by resource; from the file, only the resources are read.
    """

    def __init__(self, path: Path) -> None:
        self.registered: dict[str, frozenset[str]] = {}
        self._path = path
        self._entries: dict[str, list[Entry]] = {}
        if path.exists():
            data = json.loads(path.read_text())["Data"]
            # Go writes empty maps and lists as null.
            self.registered = {name: frozenset() for name in data["RegisteredDevices"] or {}}
            for entry in data["PodDeviceEntries"] or []:
                self._hold(entry["PodUID"], _read(entry))

    def pods(self) -> list[str]:
        """The pods that hold devices."""
        return list(self._entries)

    def of_pod(self, pod: str) -> Mapping[str, Entry]:
        """By resource: what a pod holds."""
        return {entry.resource: entry for entry in self._entries.get(pod, [])}

    def held(self, resource: str) -> frozenset[str]:
        """The ids of a resource that are held by a pod."""
        return frozenset().union(
            *(
                entry.ids
                for entries in self._entries.values()
                for entry in entries
                if entry.resource == resource
            )
        )

    def register(self, resource: str, healthy: frozenset[str]) -> None:
        """Records the healthy devices that a plugin has reported."""
        self.registered[resource] = healthy
        self._save()

    def allocate(self, pod: str, entry: Entry) -> None:
        """Records that a pod holds these devices."""
        self._hold(pod, entry)
        self._save()

    def release(self, pod: str) -> None:
        """Records that a pod holds no devices."""
        self._entries.pop(pod, None)
        self._save()

    def _hold(self, pod: str, entry: Entry) -> None:
        self._entries.setdefault(pod, []).append(entry)

    def _save(self) -> None:
        entries = [
            {
                "PodUID": pod,
                "ContainerName": entry.container,
                "ResourceName": entry.resource,
                "DeviceIDs": {node: sorted(ids) for node, ids in entry.by_node.items()},
                "AllocResp": base64.b64encode(entry.answer).decode(),
            }
            for pod, entries_of_pod in self._entries.items()
            for entry in entries_of_pod
        ]
        registered = {name: sorted(ids) for name, ids in self.registered.items()}
        data = {"PodDeviceEntries": entries or None, "RegisteredDevices": registered}
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(json.dumps({"Data": data, "Checksum": 0}))
        temporary.rename(self._path)


def _read(entry: Mapping[str, Any]) -> Entry:
    return Entry(
        resource=entry["ResourceName"],
        by_node={node: frozenset(ids) for node, ids in entry["DeviceIDs"].items()},
        answer=base64.b64decode(entry["AllocResp"] or ""),
        container=entry["ContainerName"],
    )
