"""Which of a container's annotations come from the kubelet; a pod's author can set the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isolcpus_dp.api import nri_pb2 as api

# CRI-O's annotation with those that the kubelet gave the container, as JSON (its pkg/annotations).
# CRI-O also adds the annotations of the pod to the container; any pod author can set these.
_CRIO = "cri-o"
_CRIO_ANNOTATIONS = "io.kubernetes.cri-o.Annotations"


def from_kubelet(runtime: str, container: api.Container) -> Mapping[str, str]:
    """A container's annotations, without those that a pod author can set.

    `runtime` is the name of the runtime. Raises ValueError if CRI-O's JSON is not a mapping of
    texts.
    """
    if not runtime.lower().startswith(_CRIO):
        return container.annotations
    import json  # imported only for CRI-O: it takes a third of a MiB

    received = container.annotations.get(_CRIO_ANNOTATIONS, "null")
    try:
        annotations = json.loads(received)
    except RecursionError:
        raise ValueError(f"{_CRIO_ANNOTATIONS} is nested too deeply") from None
    if annotations is None:
        return {}
    if not isinstance(annotations, dict) or not all(
        isinstance(value, str) for value in annotations.values()
    ):
        raise ValueError(f"{_CRIO_ANNOTATIONS} is not a JSON object of texts")
    return annotations
