"""The plugin side of NRI: answers the calls of a container runtime.

`pinning` decides where a container may run; here the decision becomes messages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import cpulist
from isolcpus_dp.nri import pinning, protocol
from isolcpus_dp.nri.annotations import from_kubelet
from isolcpus_dp.nri.messages import Update, difference, pod_name, repeatable, update_of
from isolcpus_dp.nri.owners import Owners
from isolcpus_dp.nri.pods import Pods
from isolcpus_dp.nri.requested import NOTE, note
from isolcpus_dp.nri.ttrpc import CallError, Code
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.nri.pinning import Rules
    from isolcpus_dp.nri.pods import PodQuotas
    from isolcpus_dp.nri.requested import Requested
    from isolcpus_dp.nri.sandbox import Sandboxes
    from isolcpus_dp.nri.unconfirmed import Unconfirmed

log = logging.getLogger(__name__)

_SUBSCRIBED = (
    protocol.STOP_POD_SANDBOX, protocol.CREATE_CONTAINER, protocol.POST_START_CONTAINER,
    protocol.UPDATE_CONTAINER, protocol.STOP_CONTAINER, protocol.REMOVE_CONTAINER,
)  # fmt: skip

# A runtime adds a plugin to those that it calls when it has made the updates of Synchronize (NRI:
# Adaptation.syncPlugin).
_AFTER_SYNCHRONIZE = ("CreateContainer", "UpdateContainer", "StopContainer", "StateChange")

# A container in one of these states has a cgroup that can be updated.
_ALIVE = (api.CONTAINER_CREATED, api.CONTAINER_PAUSED, api.CONTAINER_RUNNING)


class Connection(Protocol):
    """What the plugin needs of its connection; implemented by `session.Session`."""

    @property
    def rules(self) -> Rules: ...
    @property
    def quotas(self) -> PodQuotas: ...
    @property
    def sandboxes(self) -> Sandboxes: ...
    @property
    def unconfirmed(self) -> Unconfirmed: ...
    @property
    def requested(self) -> Requested: ...
    def synchronizing(self) -> None: ...
    def synchronized(self, runtime: str) -> None: ...
    def update(self, update: Update) -> None: ...


class Plugin:
    """Answers one runtime, from `Configure` to the end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unconfirmed = connection.unconfirmed
        self._requested = connection.requested
        self._owners = Owners()
        self._living = Pods(connection.quotas, self._update_quota)
        self._runtime = ""
        self._pods: dict[str, api.PodSandbox] = {}  # collected while Synchronize comes in parts
        self._containers: list[api.Container] = []
        self._answered: set[str] = set()  # ids of the running containers that Synchronize updates
        self._methods: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
            "Configure": (api.ConfigureRequest, self._configure),
            "Synchronize": (api.SynchronizeRequest, self._synchronize),
            "CreateContainer": (api.CreateContainerRequest, self._create_container),
            "UpdateContainer": (api.UpdateContainerRequest, self._update_container),
            "StopContainer": (api.StopContainerRequest, self._stop_container),
            "StateChange": (api.StateChangeEvent, self._state_change),
            "Shutdown": (api.Empty, self._shutdown),
        }

    def answer(self, service: str, method: str, payload: bytes) -> bytes:
        """The response to a call. Raises CallError and DecodeError."""
        if service != protocol.PLUGIN_SERVICE or method not in self._methods:
            raise CallError(Code.UNIMPLEMENTED, f"unknown method {service}/{method}")
        if method in _AFTER_SYNCHRONIZE:
            self.confirm_answered()
        request_type, function = self._methods[method]
        answer: bytes = function(request_type.FromString(payload)).SerializeToString()
        return answer

    def _configure(self, request: api.ConfigureRequest) -> api.ConfigureResponse:
        self._runtime = f"{request.runtime_name} {request.runtime_version}"
        return api.ConfigureResponse(events=sum(1 << event - 1 for event in _SUBSCRIBED))

    def _synchronize(self, request: api.SynchronizeRequest) -> api.SynchronizeResponse:
        self._pods.update({pod.id: pod for pod in request.pods})
        self._containers += request.containers
        if request.more:
            return api.SynchronizeResponse(more=True)
        self._connection.synchronizing()
        alive = [container for container in self._containers if container.state in _ALIVE]
        self._unconfirmed.keep(container.id for container in alive)
        self._requested.keep(container.id for container in alive)
        updates: list[api.ContainerUpdate] = []
        to_confirm: list[Update] = []  # made once more: one in the answer has no result of its own
        for container in alive:
            pod = self._pods.get(container.pod_sandbox_id, api.PodSandbox())
            self._requested.recall(pod, container)
            update = self._update_for(pod, container)
            if container.state == api.CONTAINER_CREATED:
                self._unconfirmed.add(container.id)  # confirmed by an update after its start
            elif update and container.id in self._unconfirmed:
                to_confirm.append(update)
            elif update:
                self._unconfirmed.add(container.id)
                self._answered.add(container.id)
            updates += [update.message] if update else []
        answer = api.SynchronizeResponse(update=updates)
        emit(
            log, Event.SYNCHRONIZED, "%s listed %d containers: updating %d",
            self._runtime, len(self._containers), len(updates),
        )  # fmt: skip
        self._connection.synchronized(self._runtime)
        for pod in self._pods.values():
            self._living.add(pod)
            self._connection.sandboxes.keep_off(pod)
        self._pods, self._containers = {}, []
        for update in to_confirm:
            self._update(update)
        self._living.settle_all()  # after the updates that repeat a quota
        return answer

    def confirm_answered(self) -> None:
        """To be called when the runtime goes on after Synchronize: it has made the updates.

        Before, it may end in the middle of one, and report the new cpuset when it runs again.
        """
        for container in self._answered:
            self._unconfirmed.confirm(container)
        self._answered.clear()

    def _create_container(self, request: api.CreateContainerRequest) -> api.CreateContainerResponse:
        cpu = request.container.linux.resources.cpu
        resources = self._changes(request.pod, request.container, cpu.cpus, cpu, creates=True)
        resources = self._with_quota(request.pod, request.container, resources)
        self._connection.sandboxes.keep_off(request.pod)
        if not resources:
            return api.CreateContainerResponse()
        adjust = api.ContainerAdjustment(linux=api.LinuxContainerAdjustment(resources=resources))
        if resources.cpu.cpus:
            adjust.annotations[NOTE] = note(cpu.cpus, resources.cpu.cpus)
        return api.CreateContainerResponse(adjust=adjust)

    def _update_container(self, request: api.UpdateContainerRequest) -> api.UpdateContainerResponse:
        if request.container.state == api.CONTAINER_STOPPED:
            return api.UpdateContainerResponse()  # it would count as living again
        wanted = request.linux_resources.cpu
        cpuset = wanted.cpus or self._request(request.container)
        self._living.wanted(request.pod.id, request.container.id, wanted)
        resources = self._changes(request.pod, request.container, cpuset, wanted)
        resources = self._with_quota(request.pod, request.container, resources)
        if not resources:
            return api.UpdateContainerResponse()
        return api.UpdateContainerResponse(update=[update_of(request.container, resources)])

    def _stop_container(self, request: api.StopContainerRequest) -> api.StopContainerResponse:
        """containerd also reports a container that has ended by itself."""
        self._owners.ended(request.container.id)
        self._living.end(request.pod.id, request.container.id)
        return api.StopContainerResponse()

    def _state_change(self, request: api.StateChangeEvent) -> api.Empty:
        """Updates a container that was created before the plugin registered and has started now.

        Synchronize reports such a container after its creation, or not at all if it is still being
        created.
        """
        if request.event == protocol.POST_START_CONTAINER:
            update = self._update_for(request.pod, request.container)
            if update:
                self._update(update)
            self._living.settle(request.pod.id)
            self._connection.sandboxes.keep_off(request.pod)
        elif request.event == protocol.REMOVE_CONTAINER:
            self._forget(request.container.id)
            self._living.end(request.pod.id, request.container.id)
        elif request.event == protocol.STOP_POD_SANDBOX:
            self._owners.pod_ended(request.pod.id)
            self._living.pod_ended(request.pod.id)
        return api.Empty()

    def _forget(self, container: str) -> None:
        """A container does not exist any more."""
        self._owners.ended(container)
        self._requested.ended(container)
        self._unconfirmed.ended(container)

    def _update(self, update: Update) -> None:
        self._unconfirmed.add(update.message.container_id)
        self._answered.discard(update.message.container_id)  # the result of this update counts
        update.message.ignore_failure = False  # a failure must be reported
        self._connection.update(update)

    def _update_quota(self, pod: str, id_: str, container: str, cpu: api.LinuxCPU) -> None:
        resources = api.LinuxResources(cpu=cpu)
        message = update_of(api.Container(id=id_), resources)
        # It does not repeat the settings of an earlier update.
        self._update(Update(message, pod, container, confirms=id_ not in self._unconfirmed))

    def _with_quota(
        self, pod: api.PodSandbox, container: api.Container, changes: api.LinuxResources | None
    ) -> api.LinuxResources | None:
        """The changes with the container's part of its pod's limit; its siblings are updated."""
        cpu = self._living.settle(pod.id, container.id)
        if not cpu:
            return changes
        changes = changes or api.LinuxResources()
        changes.cpu.MergeFrom(cpu)
        return changes

    def _shutdown(self, _request: api.Empty) -> api.Empty:
        log.debug("%s shuts down", self._runtime)
        return api.Empty()

    def _update_for(self, pod: api.PodSandbox, container: api.Container) -> Update | None:
        """The update for an existing container; None if it needs none."""
        cpu = container.linux.resources.cpu
        resources = self._changes(pod, container, self._request(container), cpu)
        if container.id in self._unconfirmed:
            repeated = api.LinuxResources(cpu=repeatable(cpu, self._connection.rules))
            if resources:
                repeated.MergeFrom(resources)
            resources = repeated if repeated.cpu.ByteSize() else None
        if not resources:
            return None
        return Update(update_of(container, resources), pod_name(pod), container.name)

    def _request(self, container: api.Container) -> str:
        """The CPU list that an existing container would have without pinning."""
        return self._requested.cpuset(container.id, container.linux.resources.cpu.cpus)

    def _changes(
        self,
        pod: api.PodSandbox,
        container: api.Container,
        cpuset: str,
        cpu: api.LinuxCPU,
        *,
        creates: bool = False,
    ) -> api.LinuxResources | None:
        """The changes to `cpu`, the settings that a container has or will get; None for none.

        `cpuset` is the CPU list that it would have without pinning. A bug in the decision must not
        prevent a container from starting: it then runs on the housekeeping CPUs. Raises CallError
        if it `creates` a container for which no CPU is left.
        """
        owner, name = pod_name(pod), container.name
        rules = self._connection.rules
        try:
            decision = pinning.decide(rules, from_kubelet(self._runtime, container), cpuset)
            if decision.cpus is None and cpuset != container.linux.resources.cpu.cpus:
                decision = pinning.returned(rules, decision, cpuset)
        except Exception:
            emit(
                log, Event.UNDECIDED,
                "internal error while pinning container %s of pod %s:"
                " it runs on the housekeeping CPUs",
                name, owner, exception=True, pod=owner, container=name,
            )  # fmt: skip
            decision = pinning.off_the_isolated(rules)
        for complaint in decision.complaints:
            emit(
                log, Event.NOT_PINNED, "container %s of pod %s: %s", name, owner, complaint,
                pod=owner, container=name,
            )  # fmt: skip
        if creates and decision.refusal:
            emit(
                log, Event.CONTAINER_REFUSED, "container %s of pod %s was not created: %s",
                name, owner, decision.refusal, pod=owner, container=name,
            )  # fmt: skip
            raise CallError(Code.FAILED_PRECONDITION, f"isolcpus-dp: {decision.refusal}")
        unlimited = decision.unlimited
        for id_ in self._living.report(pod, container, cpu, is_owner=unlimited, is_new=creates):
            self._forget(id_)
        changes = difference(decision, cpu)
        if changes and changes.cpu.cpus:
            self._requested.replace(container.id, cpuset, changes.cpu.cpus)
        self._owners.add(pod, container, decision.owned)
        if decision.owned and changes:
            emit(
                log, Event.PINNED, "container %s of pod %s owns CPU %s", name, owner,
                cpulist.render(decision.owned), cpus=decision.owned, pod=owner, container=name,
            )  # fmt: skip
        return changes
