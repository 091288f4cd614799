"""The pods of the soak, as manifests of static pods: what `author` writes and `kubelet` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

RESOURCE = "windriver.com/isolcpus"

Kind = Literal["owner", "mixed", "plain", "guaranteed"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# The kubelet's CPU manager gives these to a container of a Guaranteed pod. Half are isolated.
GUARANTEED_CPUS = "0-3"

_PERIOD_MILLIS = 1000  # of a CPU, in the 100 ms of a quota
_PERIOD = 100_000  # µs


@dataclass(frozen=True)
class Pod:
    """A pod. `devices` isolated CPUs belong to its container `main`; a mixed pod also has `side`.

    With `millis`, each container is limited to that many thousandths of a CPU, and so is the pod.
    """

    name: str  # as the kubelet names it: with the name of the node
    uid: str
    kind: Kind
    devices: int = 0
    millis: int = 0

    @property
    def container_names(self) -> tuple[str, ...]:
        return ("main", "side") if self.kind == "mixed" else ("main",)

    def created(self) -> dict[str, Any]:
        """The pod as `tests.vm.pods` creates it."""
        quota = self.millis * _PERIOD // _PERIOD_MILLIS
        return {
            "name": self.name,
            "annotations": {},
            "quota": quota * len(self.container_names),
            "containers": [
                {
                    "name": name,
                    "environment": {},
                    "cpus": GUARANTEED_CPUS if self.kind == "guaranteed" else "",
                    "quota": quota,
                    "threads": 0,
                }
                for name in self.container_names
            ],
        }


def render(pod: Pod, node: str) -> str:
    """The manifest; the kubelet adds the name of the node to its name."""
    limits = {"cpu": f"{pod.millis}m"} if pod.millis else {}
    containers = [
        {"name": name, "image": "localhost/workload:1", "resources": {"limits": dict(limits)}}
        for name in pod.container_names
    ]
    if pod.devices:
        containers[0]["resources"] = {"limits": {**limits, RESOURCE: str(pod.devices)}}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod.name.removesuffix(f"-{node}"),
                "namespace": "default",
                "uid": pod.uid,
                "labels": {"kind": pod.kind},
            },
            "spec": {"containers": containers},
        }
    )


def parse(text: str, node: str) -> Pod:
    """The pod of a manifest. Raises KeyError and ValueError."""
    manifest = json.loads(text)
    metadata = manifest["metadata"]
    limits = manifest["spec"]["containers"][0]["resources"]["limits"]
    return Pod(
        name=f"{metadata['name']}-{node}",
        uid=metadata["uid"],
        kind=metadata["labels"]["kind"],
        devices=int(limits.get(RESOURCE, 0)),
        millis=int(limits.get("cpu", "0m").rstrip("m")),
    )


def read(directory: Path, node: str, known: Mapping[str, Pod]) -> dict[str, Pod]:
    """By name: the pods whose manifests are in a directory. Those in `known` are not read again."""
    found = {}
    for path in directory.glob("[!.]*.json"):
        name = f"{path.stem}-{node}"
        try:
            found[name] = known.get(name) or parse(path.read_text(), node)
        except FileNotFoundError:
            continue  # it has just been removed
    return found
