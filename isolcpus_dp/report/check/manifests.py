"""The manifests of static pods: which containers request which devices.

The kubelet reads them from a file or a directory, without the API server
(kubelet: pkg/kubelet/config/file.go and common.go).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isolcpus_dp.host import trust
from isolcpus_dp.kubelet import document
from isolcpus_dp.report.check import files


@dataclass(frozen=True)
class Request:
    """A container of a static pod and the number of devices of a resource that it requests."""

    manifest: Path
    namespace: str
    pod: str  # as the kubelet names it: with the name of the node
    container: str
    resource: str
    size: int
    restarts: bool  # the kubelet starts it again whenever it ends

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}/{self.container}"


def paths(directory: Path) -> list[Path]:
    """The manifests in a directory, or the one file that it is. Raises Unseen."""
    if directory.is_file():
        return [directory]
    # The kubelet ignores hidden files, directories, and all that is not a regular file.
    names = [name for name in trust.names(directory) if not name.startswith(".")]
    return [directory / name for name in names if (directory / name).is_file()]


def requests(manifest: Path, node: str, resources: Collection[str]) -> list[Request]:
    """The requests for these resources in a manifest. Raises Unseen if it cannot be used."""
    text = trust.text(manifest)
    # Most static pods request none of them, and PyYAML is slow. JSON may escape a slash.
    plain = text.replace("\\/", "/")
    if not any(resource in plain for resource in resources):
        return []
    pod = document.parse(manifest, text)
    if pod.get("kind") != "Pod":
        return []
    try:
        return list(_requests(manifest, pod, node, resources))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise files.Unseen(f"{manifest} is not the manifest of a pod: {error!r}") from error


def _requests(
    manifest: Path, pod: Mapping[str, Any], node: str, resources: Collection[str]
) -> Iterator[Request]:
    metadata, spec = pod["metadata"], pod["spec"]
    restarts = spec.get("restartPolicy", "Always") == "Always"
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        quantities = container.get("resources") or {}
        # The kubelet allocates what the limits say. A request without a limit is not valid.
        limits = {**(quantities.get("requests") or {}), **(quantities.get("limits") or {})}
        for resource in resources:
            size = int(str(limits.get(resource) or 0))
            if size > 0:
                yield Request(
                    manifest=manifest,
                    namespace=str(metadata.get("namespace") or "default"),
                    pod=f"{metadata['name']}-{node}",
                    container=str(container["name"]),
                    resource=resource,
                    size=size,
                    restarts=restarts,
                )
