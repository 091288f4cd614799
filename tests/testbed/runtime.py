"""A simulated container runtime with NRI: it calls plugins and applies their responses.

Its containers are only messages. A test reads cpuset and quota from them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri.protocol import PLUGIN_SERVICE, TO_PLUGIN, TO_RUNTIME
from isolcpus_dp.nri.ttrpc import CallError, Code, Connection

# The default of containerd, which closes the connection to a slower plugin.
_REQUEST_SECONDS = 2.0

_POST_START_CONTAINER = 7


def cpus(container: api.Container) -> str:
    """The container's cpuset; empty if it is not set."""
    return container.linux.resources.cpu.cpus


def quota(container: api.Container) -> int:
    """The container's CPU quota in microseconds per period; -1 for no limit, 0 if not set."""
    return container.linux.resources.cpu.quota.value


class Runtime:
    """One run of a runtime, from `start` to `stop`.

    Pass its `pods` and `containers` to the next run, where they continue to exist.
    """

    def __init__(
        self,
        socket: Path,
        pods: dict[str, api.PodSandbox] | None = None,
        containers: dict[str, api.Container] | None = None,
        *,
        refuses: bool = False,
        chunk: int = 1000,  # the number of containers in a Synchronize request
        name: str = "simulated",
        request_seconds: float = _REQUEST_SECONDS,
    ) -> None:
        self.pods = {} if pods is None else pods
        self.containers = {} if containers is None else containers
        self.registered: list[api.RegisterPluginRequest] = []
        self.synchronize_seconds = 0.0  # the time that the last Synchronize took
        self.unchangeable: set[str] = set()  # ids of containers whose updates fail
        # Containers that were updated while they started. As in containerd, only the record
        # changes, not the cgroup.
        self.outdated: set[str] = set()
        self._socket = socket
        self._refuses = refuses
        self._chunk = chunk
        self._name = name
        self._request_seconds = request_seconds
        self.refused = 0  # number of rejected plugins
        self._server: asyncio.AbstractServer | None = None
        self._connections: list[Connection] = []
        self._plugin: Connection | None = None  # the synchronized plugin
        self.synchronized = 0  # how many plugins were
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._plugin is not None and not self._plugin.lost.is_set()

    async def start(self) -> None:
        """Creates the socket, replacing any file at its path, and accepts plugins."""
        self._socket.parent.mkdir(mode=0o700, exist_ok=True)
        self._socket.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, str(self._socket))

    async def stop(self) -> None:
        """Ends like a killed process: the socket file remains, but nothing listens on it."""
        for connection in self._connections:
            connection.close()
        if self._server and self._server.is_serving():
            beside = self._socket.with_name(".nri.sock")
            os.link(self._socket, beside)
            self._server.close()
            self._socket.unlink(missing_ok=True)  # asyncio does that from Python 3.13 on
            beside.rename(self._socket)
        for task in self._tasks:
            task.cancel()

    async def until_connected(self, seconds: float = 20.0) -> None:
        """Waits until a plugin is synchronized. Raises asyncio.TimeoutError."""
        while not self.connected:
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), seconds)

    def run_pod(self, name: str, cgroup_parent: str = "", cgroups_path: str = "") -> api.PodSandbox:
        """Creates a pod sandbox in the default namespace; `cgroups_path` is its own cgroup."""
        linux = api.LinuxPodSandbox(cgroup_parent=cgroup_parent, cgroups_path=cgroups_path)
        pod = api.PodSandbox(id=f"pod-{name}", name=name, namespace="default", linux=linux)
        self.pods[pod.id] = pod
        return pod

    async def create(
        self,
        pod: api.PodSandbox,
        name: str = "main",
        annotations: Mapping[str, str] | None = None,
        env: tuple[str, ...] = (),
        *,
        starts: bool = True,
        **cpu: Any,
    ) -> api.Container:
        """Creates a container after calling the plugin; `cpu` has the fields of LinuxCPU.

        Raises CallError or asyncio.TimeoutError if the plugin fails or does not answer.
        """
        container = api.Container(
            id=f"{pod.id}-{name}",
            pod_sandbox_id=pod.id,
            name=name,
            state=api.CONTAINER_CREATED,
            annotations=annotations,
            env=env,
            linux=api.LinuxContainer(resources=api.LinuxResources(cpu=api.LinuxCPU(**cpu))),
        )
        if self._plugin and self.connected:
            request = api.CreateContainerRequest(pod=pod, container=container)
            answer = api.CreateContainerResponse.FromString(
                await self._call(self._plugin, "CreateContainer", request)
            )
            container.linux.resources.MergeFrom(answer.adjust.linux.resources)
            container.annotations.update(answer.adjust.annotations)
        self.containers[container.id] = container
        if starts:
            await self.start_container(container)
        return container

    async def start_container(self, container: api.Container) -> None:
        """Starts a created container, and notifies the plugin."""
        container.state = api.CONTAINER_RUNNING
        if self._plugin and self.connected:
            pod = self.pods[container.pod_sandbox_id]
            event = api.StateChangeEvent(event=_POST_START_CONTAINER, pod=pod, container=container)
            await self._call(self._plugin, "StateChange", event)

    async def end_container(self, container: api.Container) -> None:
        """Ends a container: by itself, or because the kubelet stopped it."""
        container.state = api.CONTAINER_STOPPED
        if self._plugin and self.connected:
            request = api.StopContainerRequest(
                pod=self.pods[container.pod_sandbox_id], container=container
            )
            answer = api.StopContainerResponse.FromString(
                await self._call(self._plugin, "StopContainer", request)
            )
            for update in answer.update:
                self._apply(update)

    async def update(self, container: api.Container, **cpu: Any) -> None:
        """Changes a container's resources as CRI's UpdateContainerResources does."""
        resources = api.LinuxResources(cpu=api.LinuxCPU(**cpu))
        if self._plugin and self.connected:
            request = api.UpdateContainerRequest(
                pod=self.pods[container.pod_sandbox_id],
                container=container,
                linux_resources=resources,
            )
            answer = api.UpdateContainerResponse.FromString(
                await self._call(self._plugin, "UpdateContainer", request)
            )
            for update in answer.update:
                resources.MergeFrom(update.linux.resources)
        container.linux.resources.MergeFrom(resources)

    def _accept(self) -> Connection:
        connection = Connection(TO_RUNTIME, TO_PLUGIN, self.answer)
        self._connections.append(connection)
        return connection

    def answer(self, service: str, method: str, payload: bytes) -> bytes:
        """The response to a plugin's request. Raises CallError."""
        if method == "UpdateContainers":
            failed = False
            for update in api.UpdateContainersRequest.FromString(payload).update:
                if update.container_id not in self.unchangeable:
                    self._apply(update)
                    self.outdated.discard(update.container_id)
                elif not update.ignore_failure:
                    failed = True
            if failed:  # Go's ttrpc sends only the error
                raise CallError(Code.UNKNOWN, "NRI update of some containers failed")
            return api.UpdateContainersResponse().SerializeToString()
        if method != "RegisterPlugin":
            raise CallError(Code.UNIMPLEMENTED, f"unknown method {service}/{method}")
        if self._refuses:
            self.refused += 1
            raise CallError(Code.UNKNOWN, "external plugins are disabled")
        self.registered.append(api.RegisterPluginRequest.FromString(payload))
        self._tasks.append(asyncio.create_task(self._configure(self._connections[-1])))
        return b""

    async def _configure(self, plugin: Connection) -> None:
        """Configures a plugin and synchronizes it with all pods and containers."""
        request = api.ConfigureRequest(runtime_name=self._name, runtime_version="1")
        await self._call(plugin, "Configure", request)
        containers = list(self.containers.values())
        began = time.monotonic()
        starts = range(0, max(1, len(containers)), self._chunk)
        for start in starts:
            more = start != starts[-1]
            chunk = api.SynchronizeRequest(
                pods=self.pods.values() if start == 0 else (),
                containers=containers[start : start + self._chunk],
                more=more,
            )
            answer = api.SynchronizeResponse.FromString(
                await self._call(plugin, "Synchronize", chunk)
            )
            if more and (answer.update or not answer.more):
                plugin.close()  # it does not support a Synchronize in several requests
                return
        for update in answer.update:
            self._apply(update)
            if self.containers[update.container_id].state == api.CONTAINER_CREATED:
                self.outdated.add(update.container_id)
        self.synchronize_seconds = time.monotonic() - began
        self._plugin = plugin
        self.synchronized += 1
        self._changed.set()

    def _apply(self, update: api.ContainerUpdate) -> None:
        self.containers[update.container_id].linux.resources.MergeFrom(update.linux.resources)

    async def _call(self, plugin: Connection, method: str, request: Any) -> bytes:
        return await plugin.call(
            PLUGIN_SERVICE, method, request.SerializeToString(), self._request_seconds
        )
