"""Which devices the simulated kubelet gives to a container, and its memory of who holds what."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

# Asks the plugin: the ids it may choose from, those it must include, how many in all.
Preference = Callable[[frozenset[str], frozenset[str], int], Awaitable[Iterable[str]]]


async def choose(
    free: frozenset[str],
    size: int,
    prefer: Preference | None,
    aligned: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """`size` of the `free` devices, as the kubelet's devicesToAllocate does.

    `aligned` are those of them on the topology manager's NUMA node. If there are more than enough,
    the plugin is asked for some of these; else all of them are taken, and it is asked for the
    rest. Its answer counts as far as it lies within what it was offered; what it leaves open is
    filled up in the order of a Go map, that is in none. Expects size <= len(free).
    """
    offered, chosen = (aligned, frozenset[str]()) if size < len(aligned) else (free, aligned)
    if prefer and len(chosen) < size:
        answer = dict.fromkeys(await prefer(offered, chosen, size))
        fitting = [id for id in answer if id in offered - chosen]
        chosen |= frozenset(fitting[: size - len(chosen)])
    rest = sorted(offered - chosen)
    return chosen | frozenset(random.sample(rest, size - len(chosen)))


@dataclass(frozen=True)
class Entry:
    """The devices of one resource that a pod's container holds, and what came with them."""

    resource: str
    ids: frozenset[str]
    answer: bytes  # the plugin's ContainerAllocateResponse, used again when a container restarts


class Checkpoint:
    """The kubelet's file of allocations (kubelet_internal_checkpoint), read when it starts.

    The names in it are the kubelet's; its checksum, a hash of Go's own rendering of the data, is
    left at 0.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[Entry]] = {}
        if path.exists():
            for entry in json.loads(path.read_text())["Data"]["PodDeviceEntries"]:
                ids = frozenset(id for ids in entry["DeviceIDs"].values() for id in ids)
                answer = base64.b64decode(entry["AllocResp"])
                self._hold(entry["PodUID"], Entry(entry["ResourceName"], ids, answer))

    def of_pod(self, pod: str) -> Mapping[str, Entry]:
        """What a pod holds, by resource."""
        return {entry.resource: entry for entry in self._entries.get(pod, [])}

    def held(self, resource: str) -> frozenset[str]:
        """The ids of a resource that some pod holds."""
        return frozenset(
            id
            for entries in self._entries.values()
            for entry in entries
            if entry.resource == resource
            for id in entry.ids
        )

    def allocate(self, pod: str, entry: Entry) -> None:
        """Notes that a pod holds these from now on."""
        self._hold(pod, entry)
        self._save()

    def release(self, pod: str) -> None:
        """Notes that a pod holds nothing any more."""
        self._entries.pop(pod, None)
        self._save()

    def _hold(self, pod: str, entry: Entry) -> None:
        self._entries.setdefault(pod, []).append(entry)

    def _save(self) -> None:
        entries = [
            {
                "PodUID": pod,
                "ContainerName": "main",
                "ResourceName": entry.resource,
                "DeviceIDs": {"-1": sorted(entry.ids)},
                "AllocResp": base64.b64encode(entry.answer).decode(),
            }
            for pod, of_pod in self._entries.items()
            for entry in of_pod
        ]
        data = {"PodDeviceEntries": entries, "RegisteredDevices": {}}
        temporary = self._path.with_name(f".{self._path.name}")
        temporary.write_text(json.dumps({"Data": data, "Checksum": 0}))
        temporary.rename(self._path)
