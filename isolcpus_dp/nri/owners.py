"""Which running containers own which CPUs, to find a CPU that has two owners.

The kubelet gives a CPU to a second pod when it has lost its checkpoint while the first pod runs.
The daemon cannot know which of them is right, so it moves neither and reports both.

The table holds what the runtime has reported over one connection, and ends with it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from isolcpus_dp.host import cpulist
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.api import nri_pb2 as api

log = logging.getLogger(__name__)


class _Owner(NamedTuple):
    sandbox: str  # the id of its pod sandbox
    pod_uid: str
    pod: str  # namespace and name
    container: str  # name
    cpus: frozenset[int]


class Owners:
    """The owners among the containers of a runtime that have not ended."""

    def __init__(self) -> None:
        self._owners: dict[str, _Owner] = {}  # by container id

    def add(self, pod: api.PodSandbox, container: api.Container, cpus: frozenset[int]) -> None:
        """Records the CPUs that a container owns; reports for each of them an earlier owner.

        Containers of one pod are not compared: the kubelet gives the CPUs of an init container to a
        later container of its pod, and those of a container to the next one of its name.
        """
        name = f"{pod.namespace}/{pod.name}"
        owner = _Owner(container.pod_sandbox_id, pod.uid or name, name, container.name, cpus)
        before = self._owners.pop(container.id, None)
        if cpus:
            self._owners[container.id] = owner
        if before == owner:  # already compared
            return
        unreported = cpus
        for other in self._owners.values():
            shared = other.cpus & unreported
            if shared and other.pod_uid != owner.pod_uid:
                unreported -= shared
                emit(
                    log, Event.OWNED_TWICE,
                    "CPU %s has two owners: container %s of pod %s and container %s of pod %s;"
                    " neither is moved: delete one of the pods",
                    cpulist.render(shared), other.container, other.pod, owner.container, owner.pod,
                    cpus=shared, pod=owner.pod, container=owner.container,
                    other_pod=other.pod, other_container=other.container,
                )  # fmt: skip

    def ended(self, container: str) -> None:
        """To be called when a container has ended or was removed, with its id."""
        self._owners.pop(container, None)

    def pod_ended(self, sandbox: str) -> None:
        """To be called when all containers of a pod have ended, with the id of its sandbox."""
        for container in [id_ for id_, one in self._owners.items() if one.sandbox == sandbox]:
            del self._owners[container]
