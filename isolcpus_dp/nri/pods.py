"""The living containers of each pod, as the runtime reports them, and what follows for CPU quotas.

While a container of a pod owns CPUs, the quota of the pod's cgroup is lifted; then the limit of the
pod is divided among its other containers, if their own quotas do not hold it. When no owner lives,
all quotas are again as the kubelet set them. Kept for one connection only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri import shares
from isolcpus_dp.nri.notes import USUAL_PERIOD, Note, Quota, Replaced
from isolcpus_dp.service.events import Event, emit

log = logging.getLogger(__name__)


class PodQuotas(Protocol):
    """The quotas of pods' own cgroups and the notes on them; implemented by `quota.Quotas`."""

    def note(self, parent: str) -> Note: ...
    def note_containers(self, parent: str, pod: str, containers: dict[str, Replaced]) -> None: ...
    def lift(self, parent: str, pod: str, on_set: Callable[[], object]) -> Quota | None: ...
    def restore(self, parent: str, pod: str) -> None: ...


@dataclass
class _Container:
    name: str
    quota: Quota  # as the kubelet set it
    has: Quota  # as it is now
    shares: int
    is_owner: bool


@dataclass
class _Pod:
    name: str  # with its namespace
    parent: str
    containers: dict[str, _Container] = field(default_factory=dict)  # by container id


class Pods:
    """All pods of a connection. `settle` applies what the other methods were told."""

    def __init__(
        self, quotas: PodQuotas, send: Callable[[str, str, str, api.LinuxCPU], None]
    ) -> None:
        """`send` updates a container: the name of its pod, its id, its name, and the change."""
        self._quotas = quotas
        self._send = send
        self._pods: dict[str, _Pod] = {}  # by sandbox id

    def add(self, pod: api.PodSandbox) -> None:
        """A pod exists."""
        if pod.id not in self._pods:
            name = f"{pod.namespace}/{pod.name}"
            self._pods[pod.id] = _Pod(name, pod.linux.cgroup_parent)

    def report(
        self,
        pod: api.PodSandbox,
        container: api.Container,
        cpu: api.LinuxCPU,
        *,
        is_owner: bool,
        is_new: bool = False,
    ) -> list[str]:
        """A container lives; `cpu` are its settings, or those that it will get.

        `is_owner` says whether its own quota is lifted, `is_new` whether it is being created.
        Returns the ids of containers in whose place it is created, and which do not exist any more.
        A bug must not prevent it from starting: its pod's quotas then do not take it into account.
        """
        try:
            return self._report(pod, container, cpu, is_owner=is_owner, is_new=is_new)
        except Exception:
            emit(
                log, Event.DEGRADED, "internal error while recording the CPU quota of container %s"
                " of pod %s: it is unchanged", container.name, pod.name, exception=True,
            )  # fmt: skip
            return []

    def _report(
        self,
        pod: api.PodSandbox,
        container: api.Container,
        cpu: api.LinuxCPU,
        *,
        is_owner: bool,
        is_new: bool,
    ) -> list[str]:
        self.add(pod)
        siblings = self._pods[pod.id].containers
        # A pod has one container of a name at a time. The runtime does not report the end of an
        # earlier one that was not created, because another plugin rejected it.
        replaced = [id_ for id_, one in siblings.items() if is_new and one.name == container.name]
        for id_ in replaced:
            del siblings[id_]
        known = siblings.get(container.id)
        has = _quota(cpu if cpu.quota.value else container.linux.resources.cpu)
        quota = known.quota if known else self._kubelets(pod, container, has)
        siblings[container.id] = _Container(
            name=container.name,
            quota=quota,
            has=has._replace(time=-1) if is_owner else has,
            shares=cpu.shares.value or (known.shares if known else 0),
            is_owner=is_owner,
        )
        return replaced

    def _kubelets(self, pod: api.PodSandbox, container: api.Container, has: Quota) -> Quota:
        """The quota that the kubelet set for a container that has the quota `has`."""
        note = self._quotas.note(pod.linux.cgroup_parent)
        replaced = note.containers.get(container.id)
        # Otherwise the kubelet has set it since.
        return replaced.quota if replaced and replaced.by == has.time else has

    def wanted(self, pod_id: str, container_id: str, cpu: api.LinuxCPU) -> None:
        """The kubelet sets these settings for a container."""
        pod = self._pods.get(pod_id)
        known = pod.containers.get(container_id) if pod else None
        if known and cpu.quota.value:
            known.quota = known.has = _quota(cpu)

    def end(self, pod_id: str, container_id: str) -> None:
        """A container has ended."""
        pod = self._pods.get(pod_id)
        if pod and pod.containers.pop(container_id, None):
            self.settle(pod_id)

    def pod_ended(self, pod_id: str) -> None:
        """All containers of a pod have ended."""
        pod = self._pods.get(pod_id)
        if pod:
            pod.containers.clear()
            self.settle(pod_id)

    def settle_all(self) -> None:
        for pod_id in list(self._pods):
            self.settle(pod_id)

    def settle(self, pod_id: str, answered: str = "") -> api.LinuxCPU | None:
        """Applies the quotas of a pod and its containers.

        Containers are updated, except for the one with the id `answered`: its change is returned.
        A bug must not prevent a container from starting: it then keeps its quota.
        """
        try:
            return self._settle(pod_id, answered)
        except Exception:
            emit(
                log, Event.DEGRADED, "internal error while setting the CPU quotas of pod %s:"
                " they are unchanged", pod_id, exception=True,
            )  # fmt: skip
            return None

    def _settle(self, pod_id: str, answered: str) -> api.LinuxCPU | None:
        pod = self._pods.get(pod_id)
        if pod is None:
            return None
        if not pod.containers:
            del self._pods[pod_id]
        limit = None
        if any(one.is_owner for one in pod.containers.values()):
            limit = self._quotas.lift(pod.parent, pod.name, lambda: self.settle(pod_id))
        else:
            self._quotas.restore(pod.parent, pod.name)
        others = {key: one for key, one in pod.containers.items() if not one.is_owner}
        should = {key: one.quota for key, one in others.items()}
        if limit:
            claims = {key: shares.Claim(one.quota, one.shares) for key, one in others.items()}
            should = shares.divide(limit, claims)
        # An owner's own quota is lifted where its CPUs are set.
        given = {key: should[key] if key in should else Quota(-1) for key in pod.containers}
        replaced = {
            key: Replaced(one.quota, given[key].time)
            for key, one in pod.containers.items()
            if one.quota.time != given[key].time
        }
        self._quotas.note_containers(pod.parent, pod.name, replaced)
        answer = None
        for key, one in others.items():
            if one.has != should[key] and (one.has.time > 0 or should[key].time > 0):
                one.has = should[key]
                if key == answered:
                    answer = _settings(one.has)
                else:
                    self._send(pod.name, key, one.name, _settings(one.has))
        return answer


def _quota(cpu: api.LinuxCPU) -> Quota:
    time = cpu.quota.value if cpu.quota.value > 0 else -1
    return Quota(time, cpu.period.value or USUAL_PERIOD)


def _settings(quota: Quota) -> api.LinuxCPU:
    settings = api.LinuxCPU(quota=api.OptionalInt64(value=quota.time))
    if quota.time > 0:
        settings.period.value = quota.period
    return settings
