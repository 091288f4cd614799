"""The kubelet's checkpoint: which devices it has given to the containers of pods.

The kubelet writes it after each Allocate, before it starts the container. It also has devices that
the pod resources do not list: those of init containers, and of pods that have ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host import daemons, files
from isolcpus_dp.kubelet import paths, podresources

if TYPE_CHECKING:
    from isolcpus_dp.pool import Pool


@dataclass(frozen=True)
class Entry:
    """The devices of one resource that a container of a pod has been given."""

    pod_uid: str
    container: str
    resource: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"container {self.container} of the pod with UID {self.pod_uid}"


def read(kubelet_dir: Path) -> frozenset[Entry]:
    """The entries of the checkpoint; none if there is no file. Raises Unseen."""
    file = paths.checkpoint(kubelet_dir)
    text = files.text(file)
    try:
        return parse(text) if text else frozenset()
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise files.Unseen(f"{file} does not have the format of a kubelet's checkpoint") from error


def parse(text: str) -> frozenset[Entry]:
    """The entries in the text of a checkpoint.

    Raises AttributeError, KeyError, TypeError or ValueError for another format.
    """
    # The format: pkg/kubelet/cm/devicemanager/checkpoint in the kubelet. Go writes no entries as
    # null.
    entries = json.loads(text)["Data"]["PodDeviceEntries"] or []
    return frozenset(
        Entry(
            str(entry["PodUID"]),
            str(entry["ContainerName"]),
            str(entry["ResourceName"]),
            tuple(sorted(_ids(entry["DeviceIDs"]))),
        )
        for entry in entries
    )


def _ids(listed: Any) -> Iterable[str]:
    # By NUMA node; kubelets before 1.20 wrote a list.
    lists = listed.values() if isinstance(listed, dict) else (listed or (),)
    return (str(device_id) for ids in lists for device_id in ids)


def cpus(entries: Iterable[Entry], pools: Iterable[Pool]) -> Mapping[int, Entry]:
    """By CPU: the entry that has its device, of the resources of these pools."""
    by_resource = {pool.resource_name: pool for pool in pools}
    return {
        cpu: entry
        for entry in entries
        if entry.resource in by_resource
        for cpu in podresources.owned(
            by_resource[entry.resource],
            podresources.Allocation("", "", entry.container, entry.resource, entry.ids),
        )
    }


def running(entries: Iterable[Entry], proc: Path) -> frozenset[Entry]:
    """The entries of pods that have processes. Raises Unseen.

    The kubelet keeps entries of pods that have ended until its next allocation.
    """
    entries = frozenset(entries)
    if not entries:
        return entries
    pids = [int(name) for name in files.names(proc) if name.isdecimal()]
    paths = {path for pid in pids for _, path in daemons.cgroups(proc, pid) if "pod" in path}
    # The systemd driver of the kubelet replaces each dash in the name of a slice.
    return frozenset(
        entry
        for entry in entries
        if any(
            f"pod{uid}" in path
            for uid in (entry.pod_uid, entry.pod_uid.replace("-", "_"))
            for path in paths
        )
    )
