"""The plugin side of NRI: what a container runtime asks, and what it is answered.

Where a container may run is decided in `pinning`; here that becomes messages.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import cpulist
from isolcpus_dp.nri import pinning
from isolcpus_dp.nri.ttrpc import CallError, Code
from isolcpus_dp.service.events import Event, emit

if TYPE_CHECKING:
    from isolcpus_dp.nri.pinning import Decision, Rules
    from isolcpus_dp.nri.unconfirmed import Unconfirmed

log = logging.getLogger(__name__)

PLUGIN_SERVICE = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME_SERVICE = "nri.pkg.api.v1alpha1.Runtime"
# The two logical connections of NRI's multiplexer.
TO_PLUGIN, TO_RUNTIME = 1, 2

# Event k is bit k-1: CREATE_CONTAINER is 4, POST_START_CONTAINER 7, UPDATE_CONTAINER 8.
_POST_START_CONTAINER = 7
_EVENTS = 1 << 3 | 1 << _POST_START_CONTAINER - 1 | 1 << 7

# Where CRI-O puts the annotations that the kubelet gave a container, as JSON (its
# pkg/annotations): beside them stand those of the pod, which are its author's.
_CRIO = "cri-o"
_CRIO_ANNOTATIONS = "io.kubernetes.cri-o.Annotations"

# A container that is in one of these states has a cgroup to update.
_ALIVE = (api.CONTAINER_CREATED, api.CONTAINER_PAUSED, api.CONTAINER_RUNNING)


class Update(NamedTuple):
    """A change of a container that the runtime has not asked about, and whose it is."""

    message: api.ContainerUpdate
    pod: str  # namespace and name
    container: str  # its name


class PodQuotas(Protocol):
    """Lifts the CPU quota of a pod's own cgroup: `cgroup.Quotas`."""

    def lift(self, parent: str, pod: str) -> None: ...


class Connection(Protocol):
    """What the plugin needs of the connection that it answers on: `session.Session`."""

    @property
    def rules(self) -> Rules: ...
    @property
    def quotas(self) -> PodQuotas: ...
    @property
    def unconfirmed(self) -> Unconfirmed: ...
    def synchronized(self, runtime: str) -> None: ...
    def update(self, update: Update) -> None: ...


class Plugin:
    """Answers one runtime, from `Configure` to the end of its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rules = connection.rules
        self._unconfirmed = connection.unconfirmed
        self._runtime = ""
        self._pods: dict[str, api.PodSandbox] = {}  # while Synchronize tells of them
        self._containers: list[api.Container] = []
        self._methods: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
            "Configure": (api.ConfigureRequest, self._configure),
            "Synchronize": (api.SynchronizeRequest, self._synchronize),
            "CreateContainer": (api.CreateContainerRequest, self._create_container),
            "UpdateContainer": (api.UpdateContainerRequest, self._update_container),
            "StateChange": (api.StateChangeEvent, self._state_change),
            "Shutdown": (api.Empty, self._shutdown),
        }

    def answer(self, service: str, method: str, payload: bytes) -> bytes:
        """The response to a call. Raises CallError and DecodeError."""
        if service != PLUGIN_SERVICE or method not in self._methods:
            raise CallError(Code.UNIMPLEMENTED, f"unknown method {service}/{method}")
        request_type, function = self._methods[method]
        answer: bytes = function(request_type.FromString(payload)).SerializeToString()
        return answer

    def _configure(self, request: api.ConfigureRequest) -> api.ConfigureResponse:
        self._runtime = f"{request.runtime_name} {request.runtime_version}"
        return api.ConfigureResponse(events=_EVENTS)

    def _synchronize(self, request: api.SynchronizeRequest) -> api.SynchronizeResponse:
        self._pods.update({pod.id: pod for pod in request.pods})
        self._containers += request.containers
        if request.more:
            return api.SynchronizeResponse(more=True)
        alive = [container for container in self._containers if container.state in _ALIVE]
        self._unconfirmed.keep(container.id for container in alive)
        updates: list[api.ContainerUpdate] = []
        to_confirm: list[Update] = []  # an update in the answer has no result
        for container in alive:
            pod = self._pods.get(container.pod_sandbox_id, api.PodSandbox())
            update = self._update_for(pod, container)
            if container.state == api.CONTAINER_CREATED:
                self._unconfirmed.add(container.id)  # until it has started
                updates += [update.message] if update else []
            elif update and container.id in self._unconfirmed:
                to_confirm.append(update)
            elif update:
                updates.append(update.message)
        emit(
            log, Event.SYNCHRONIZED, "%s has %d containers: updating %d",
            self._runtime, len(self._containers), len(updates) + len(to_confirm),
        )  # fmt: skip
        self._connection.synchronized(self._runtime)
        self._pods, self._containers = {}, []
        for update in to_confirm:
            self._update(update)
        return api.SynchronizeResponse(update=updates)

    def _create_container(self, request: api.CreateContainerRequest) -> api.CreateContainerResponse:
        cpu = request.container.linux.resources.cpu
        resources = self._changes(request.pod, request.container, cpu.cpus, cpu)
        if not resources:
            return api.CreateContainerResponse()
        return api.CreateContainerResponse(
            adjust=api.ContainerAdjustment(linux=api.LinuxContainerAdjustment(resources=resources))
        )

    def _update_container(self, request: api.UpdateContainerRequest) -> api.UpdateContainerResponse:
        wanted = request.linux_resources.cpu
        cpuset = wanted.cpus or request.container.linux.resources.cpu.cpus
        resources = self._changes(request.pod, request.container, cpuset, wanted)
        if not resources:
            return api.UpdateContainerResponse()
        return api.UpdateContainerResponse(update=[_message(request.container, resources)])

    def _state_change(self, request: api.StateChangeEvent) -> api.Empty:
        """Puts a container right that was made before the runtime had us and starts only now.

        Synchronize told of it too late, or, if it was still being made, not at all.
        """
        if request.event == _POST_START_CONTAINER:
            update = self._update_for(request.pod, request.container)
            if update:
                self._update(update)
        return api.Empty()

    def _update(self, update: Update) -> None:
        self._unconfirmed.add(update.message.container_id)
        update.message.ignore_failure = False  # a failure must be reported
        self._connection.update(update)

    def _shutdown(self, _request: api.Empty) -> api.Empty:
        emit(log, Event.RUNTIME_LEFT, "%s shuts down", self._runtime)
        return api.Empty()

    def _update_for(self, pod: api.PodSandbox, container: api.Container) -> Update | None:
        """What must become of a container that is there; None if nothing."""
        cpu = container.linux.resources.cpu
        resources = self._changes(pod, container, cpu.cpus, cpu)
        if container.id in self._unconfirmed:
            said_anew = api.LinuxResources(cpu=_still_sayable(cpu, self._rules))
            if resources:
                said_anew.MergeFrom(resources)
            resources = said_anew if said_anew.cpu.ByteSize() else None
        if not resources:
            return None
        return Update(_message(container, resources), _name(pod), container.name)

    def _changes(
        self, pod: api.PodSandbox, container: api.Container, cpuset: str, cpu: api.LinuxCPU
    ) -> api.LinuxResources | None:
        """What must change of `cpu`, which a container has or is to get; None if nothing.

        `cpuset` is what it would have without us. If it cannot be decided, that is a bug of ours,
        and must not keep a container from starting: it is kept off the isolated CPUs.
        """
        owner, name = _name(pod), container.name
        try:
            decision = pinning.decide(self._rules, self._kubelets_annotations(container), cpuset)
            changes = _difference(decision, cpu)
            if decision.unlimited:
                self._connection.quotas.lift(pod.linux.cgroup_parent, owner)
        except Exception:
            emit(
                log, Event.UNDECIDED,
                "internal error while pinning container %s of pod %s:"
                " it runs on the housekeeping CPUs",
                name, owner, exception=True, pod=owner, container=name,
            )  # fmt: skip
            return _difference(pinning.off_the_isolated(self._rules), cpu)
        for complaint in decision.complaints:
            emit(
                log, Event.NOT_PINNED, "container %s of pod %s: %s", name, owner, complaint,
                pod=owner, container=name,
            )  # fmt: skip
        if decision.owned and changes:
            emit(
                log, Event.PINNED, "container %s of pod %s owns CPU %s", name, owner,
                cpulist.render(decision.owned), cpus=decision.owned, pod=owner, container=name,
            )  # fmt: skip
        return changes

    def _kubelets_annotations(self, container: api.Container) -> Mapping[str, str]:
        """A container's annotations, without any that its pod's author may have written."""
        if not self._runtime.lower().startswith(_CRIO):
            return container.annotations
        import json  # a third of a MiB that containerd does not need

        received = container.annotations.get(_CRIO_ANNOTATIONS, "null")
        annotations: Mapping[str, str] | None = json.loads(received)
        return annotations or {}


def _difference(decision: Decision, cpu: api.LinuxCPU) -> api.LinuxResources | None:
    """What must change of what a container has or is to get; None if nothing."""
    changes = api.LinuxCPU()
    if decision.cpus is not None and cpulist.render(decision.cpus) != cpu.cpus:
        changes.cpus = cpulist.render(decision.cpus)
    if decision.mems is not None and cpulist.render(decision.mems) != cpu.mems:
        changes.mems = cpulist.render(decision.mems)
    if decision.unlimited and cpu.quota.value > 0:
        changes.quota.value = -1
    return api.LinuxResources(cpu=changes) if changes.ByteSize() else None


def _still_sayable(cpu: api.LinuxCPU, rules: Rules) -> api.LinuxCPU:
    """What a container has by the runtime's word, as far as it can be said once more."""
    sayable = api.LinuxCPU(mems=cpu.mems)
    with contextlib.suppress(ValueError):  # no CPU list: something else is said in its place
        sayable.cpus = cpulist.render(cpulist.parse(cpu.cpus) & rules.nameable)
    if cpu.quota.value < 0:
        sayable.quota.value = cpu.quota.value
    return sayable


def _name(pod: api.PodSandbox) -> str:
    return f"{pod.namespace}/{pod.name}"


def _message(container: api.Container, resources: api.LinuxResources) -> api.ContainerUpdate:
    return api.ContainerUpdate(
        container_id=container.id,
        linux=api.LinuxContainerUpdate(resources=resources),
        # A runtime that cannot do it says so in its log; otherwise it would drop the plugin.
        ignore_failure=True,
    )
