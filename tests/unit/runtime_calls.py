"""The plugin without a connection: a test makes the runtime's calls and sees the updates.

The records of containers are kept as a runtime keeps them. Cgroups are directories.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.config import Config, PinningConfig
from isolcpus_dp.host import inotify, machine
from isolcpus_dp.nri import pinning
from isolcpus_dp.nri.messages import Update
from isolcpus_dp.nri.plugin import Plugin
from isolcpus_dp.nri.protocol import PLUGIN_SERVICE
from isolcpus_dp.nri.quota import Quotas
from isolcpus_dp.nri.requested import Requested
from isolcpus_dp.nri.sandbox import Sandboxes
from isolcpus_dp.nri.unconfirmed import Unconfirmed
from isolcpus_dp.nri.watches import Watches

from .conftest import MakeUp

OWNER = {"windriver.com/isolcpus": "2-3"}


class Calls:
    """A runtime on a machine of 4 CPUs, of which 2 and 3 are isolated. Also the connection."""

    def __init__(self, make_up: MakeUp, cgroups: Path, watch: inotify.Watch) -> None:
        self.cgroups = cgroups
        self.unconfirmed = Unconfirmed()
        self.requested = Requested()
        self.containers: dict[str, api.Container] = {}
        self.pods: dict[str, api.PodSandbox] = {}
        self._updates: list[Update] = []
        self._present = machine.read(make_up("1x4x1", {2, 3}).root)
        self._watch = watch
        self.connect()

    def connect(self, **keys: Any) -> None:
        """Starts a daemon with these keys of [Pinning]; the runtime lists its containers."""
        config = Config(pinning=PinningConfig(**keys))
        present = self._present.present
        self.rules = pinning.rules(self._present, config, present, frozenset())
        watches = Watches(self._watch)
        self.quotas = Quotas(self.cgroups, watches)
        self.sandboxes = Sandboxes(self.cgroups, lambda: self.rules, watches)
        self.plugin = Plugin(self)
        request = api.SynchronizeRequest(
            pods=self.pods.values(), containers=self.containers.values()
        )
        answer = api.SynchronizeResponse.FromString(self._call("Synchronize", request))
        for message in answer.update:
            self._apply(message)
        self.apply_updates()

    def synchronizing(self) -> None:
        pass

    def synchronized(self, runtime: str) -> None:
        pass

    def update(self, update: Update) -> None:
        """As in a session, the update is applied when the current call is answered."""
        self._updates.append(update)

    def apply_updates(self) -> None:
        """Applies the updates that the plugin sent."""
        for update in self._updates:
            self._apply(update.message)
            if update.confirms:
                self.unconfirmed.confirm(update.message.container_id)
        self._updates.clear()

    def pod(self, name: str, cgroup_parent: str = "", cgroups_path: str = "") -> api.PodSandbox:
        linux = api.LinuxPodSandbox(
            cgroup_parent=cgroup_parent or f"/kubepods/{name}", cgroups_path=cgroups_path
        )
        pod = api.PodSandbox(id=name, name=name, namespace="default", linux=linux)
        self.pods[pod.id] = pod
        return pod

    def create(
        self,
        pod: api.PodSandbox,
        name: str,
        annotations: Mapping[str, str] | None = None,
        quota: int = 0,
        shares: int = 2,
    ) -> api.Container:
        """Creates and starts a container."""
        container = api.Container(
            id=f"{pod.id}-{name}", pod_sandbox_id=pod.id, name=name, annotations=annotations
        )
        cpu = container.linux.resources.cpu
        cpu.quota.value, cpu.period.value, cpu.shares.value = quota, 100_000, shares
        request = api.CreateContainerRequest(pod=pod, container=container)
        answer = api.CreateContainerResponse.FromString(self._call("CreateContainer", request))
        container.linux.resources.MergeFrom(answer.adjust.linux.resources)
        container.state = api.CONTAINER_RUNNING
        self.containers[container.id] = container
        self.apply_updates()
        event = api.StateChangeEvent(event=7, pod=pod, container=container)
        self._call("StateChange", event)
        self.apply_updates()
        return container

    def rejected(
        self,
        pod: api.PodSandbox,
        name: str,
        annotations: Mapping[str, str] | None = None,
        quota: int = 0,
    ) -> api.Container:
        """Creates a container that another plugin rejects; the runtime does not report its end."""
        container = api.Container(
            id=f"rejected-{name}", pod_sandbox_id=pod.id, name=name, annotations=annotations
        )
        container.linux.resources.cpu.quota.value = quota
        self._call("CreateContainer", api.CreateContainerRequest(pod=pod, container=container))
        return container

    def event(self, number: int, pod: api.PodSandbox, container: api.Container) -> None:
        """Reports one of NRI's events."""
        self._call("StateChange", api.StateChangeEvent(event=number, pod=pod, container=container))

    def set_quota(self, container: api.Container, quota: int) -> None:
        """The kubelet sets the quota of a container."""
        resources = api.LinuxResources(cpu=api.LinuxCPU(quota=api.OptionalInt64(value=quota)))
        pod = self.pods[container.pod_sandbox_id]
        request = api.UpdateContainerRequest(
            pod=pod, container=container, linux_resources=resources
        )
        answer = api.UpdateContainerResponse.FromString(self._call("UpdateContainer", request))
        container.linux.resources.MergeFrom(resources)
        for message in answer.update:
            self._apply(message)
        self.apply_updates()

    def end(self, container: api.Container) -> None:
        """A container ends while the daemon is connected."""
        del self.containers[container.id]
        pod = self.pods[container.pod_sandbox_id]
        self._call("StopContainer", api.StopContainerRequest(pod=pod, container=container))
        self.apply_updates()

    def _apply(self, message: api.ContainerUpdate) -> None:
        self.containers[message.container_id].linux.resources.MergeFrom(message.linux.resources)

    def _call(self, method: str, request: Any) -> bytes:
        return self.plugin.answer(PLUGIN_SERVICE, method, request.SerializeToString())


def quota(container: api.Container) -> int:
    value: int = container.linux.resources.cpu.quota.value
    return value
