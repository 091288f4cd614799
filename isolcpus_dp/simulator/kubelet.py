"""A simulated kubelet: its sockets, registrations of device plugins, and admission of pods.

A model of kubelet 1.36 without API server and container runtime. `python3 -m isolcpus_dp.simulator`
runs it as a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.api import podresources_pb2_grpc as resources_rpc
from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator import topology
from isolcpus_dp.simulator.manager import AdmissionError, Cause, DeviceManager
from isolcpus_dp.simulator.plugins import Plugin, Registration, dial
from isolcpus_dp.simulator.podresources import PodResources
from isolcpus_dp.simulator.timing import LATE_ENOUGH, Admission, After

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["AdmissionError", "Cause", "Kubelet", "Pod"]

log = logging.getLogger("kubelet")


@dataclass(frozen=True)
class Pod:
    """A pod with a container that runs on; `requests` has the number of devices by resource.

    With `has_init_container`, a container with the same requests has run before it and ended; the
    two use the same devices.
    """

    name: str
    requests: Mapping[str, int]
    has_init_container: bool = False


class Kubelet(rpc.RegistrationServicer):
    """One run of a kubelet, from `start` to `stop`; the next run is another object.

    `containers` is a directory with a file for every running container, by name of its pod. It
    outlives the kubelet, as containers do; empty it to simulate a reboot. An init container has no
    file: it has always ended.
    """

    def __init__(
        self,
        directory: Path,
        containers: Path,
        static_pods: Iterable[Pod] = (),
        admission: Admission = LATE_ENOUGH,
        topology_policy: str = "none",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.pods: dict[str, str] = {}  # by name: Running, or why it failed
        self.causes: dict[str, Cause] = {}  # by name of each pod that failed
        self.registrations = 0
        self.bound: float | None = None  # time.monotonic(); None: its socket is not bound yet
        self.directory = directory
        self._plugin_directory = paths.device_plugins(directory)
        self._manager = DeviceManager(paths.checkpoint(directory))
        self.plugins = self._manager.plugins  # by resource
        self.pod_resources = PodResources(self._manager, self.pods)
        self._containers = containers
        self._static_pods = tuple(static_pods)
        self._admission = admission
        self._topology_policy = topology_policy
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._servers: list[grpc.aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Removes the plugins' sockets, binds its own, and will then admit its static pods."""
        self._containers.mkdir(parents=True, exist_ok=True)
        self._plugin_directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._manager.read_checkpoint()
        lister, registrar = grpc.aio.server(), grpc.aio.server()
        resources_rpc.add_PodResourcesListerServicer_to_server(self.pod_resources, lister)
        rpc.add_RegistrationServicer_to_server(self, registrar)
        await self._serve(lister, paths.pod_resources_socket(self.directory))
        for entry in self._plugin_directory.iterdir():
            # A plugin that ends may be removing its socket, too.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(entry.lstat().st_mode):
                    entry.unlink()
        self.bound = bound = await self._serve(registrar, paths.registration_socket(self.directory))
        log.info("serving device plugin registration")
        self._spawn(self._admit_static_pods(bound))

    async def stop(self) -> None:
        """Ends as a killed process does: connections close, and its dead sockets remain."""
        for task in self._tasks:
            task.cancel()
        for plugin in self.plugins.values():
            await plugin.channel.close()
        for server in self._servers:
            await server.stop(grace=None)

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Waits until the condition is true. Raises asyncio.TimeoutError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())

    async def registration(self, resource: str, seconds: float = 20.0) -> Registration:
        """Waits until a resource's devices are reported, and returns the times of the steps.

        Raises asyncio.TimeoutError after `seconds`.
        """
        await self.until(lambda: self._manager.is_reported(resource), seconds)
        plugin = self.plugins[resource]
        assert self.bound is not None
        assert plugin.reported is not None
        return Registration(
            self.bound, plugin.called, plugin.connected, plugin.answered, plugin.reported
        )

    def allocatable(self, resource: str) -> int:
        """The number of devices of a resource that the node status shows as allocatable."""
        return self._manager.allocatable(resource)

    def node_status(self) -> dict[str, object]:
        """The node status that the API server would get, and each device in addition."""
        status = self._manager.node_status()
        return {**status, "registrations": self.registrations, "pods": self.pods}

    async def admit(self, pod: Pod) -> Mapping[str, api.ContainerAllocateResponse]:
        """Admits a pod and starts its container. By resource: the plugin's answers to Allocate.

        A pod that holds devices keeps them. They are not checked if its container is still running
        after a restart of the kubelet, except if an init container has ended: the kubelet admits
        each container on its own, and this one is not running (kubernetes issue 138446). Raises
        AdmissionError; the pod is then Failed permanently.
        """
        try:
            if self._needs_devices(pod):
                wishes = self._manager.wishes(pod.name, pod.requests)
                node = topology.affinity(self._topology_policy, wishes)
                for resource, size in pod.requests.items():
                    await self._manager.allocate(pod.name, resource, size, node)
        except topology.TopologyAffinityError as error:
            self._fail(pod, f"TopologyAffinityError: {error}", Cause.OTHER)
            raise AdmissionError(str(error), Cause.OTHER) from error
        except AdmissionError as error:
            self._fail(pod, f"UnexpectedAdmissionError: {error}", error.cause)
            raise
        else:
            (self._containers / pod.name).touch()
            self.pods[pod.name] = "Running"
        finally:
            log.info("pod %s is %s", pod.name, self.pods.get(pod.name))
            self._notify()
        return self.answers(pod.name)

    def _needs_devices(self, pod: Pod) -> bool:
        """Whether a pod has a container that is not running, and so needs its devices now."""
        return pod.has_init_container or not (self._containers / pod.name).exists()

    def _fail(self, pod: Pod, reason: str, cause: Cause) -> None:
        """Ends a pod for good. Devices that it holds are free for the next pod."""
        self.delete(pod.name)
        self.pods[pod.name] = f"Failed: {reason}"
        self.causes[pod.name] = cause

    def answers(self, pod_name: str) -> Mapping[str, api.ContainerAllocateResponse]:
        """By resource: the plugin's answer to Allocate for the devices that a pod holds."""
        return {
            resource: api.ContainerAllocateResponse.FromString(entry.answer)
            for resource, entry in self._manager.checkpoint.of_pod(pod_name).items()
        }

    def held_by(self, pod_name: str, resource: str) -> frozenset[str]:
        """The ids of the devices that a pod holds."""
        return self._manager.held_by(pod_name, resource)

    def delete(self, pod_name: str) -> None:
        """Ends a pod and frees its devices."""
        self.pods.pop(pod_name, None)
        self.causes.pop(pod_name, None)
        (self._containers / pod_name).unlink(missing_ok=True)
        self._manager.checkpoint.release(pod_name)

    async def Register(self, request: api.RegisterRequest, context: Context) -> api.Empty:
        log.info("got a registration of %s at %s", request.resource_name, request.endpoint)
        self.registrations += 1
        try:
            await self.connect(request)
        except ValueError as error:
            log.info("rejected it: %s", error)
            # A Go error without a gRPC status arrives as UNKNOWN with its text.
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return api.Empty()

    async def connect(self, request: api.RegisterRequest) -> None:
        """Checks a registration, dials the plugin back and watches its devices.

        Raises ValueError.
        """
        plugin = await dial(request, self._plugin_directory)
        before = self.plugins.get(plugin.resource)
        self.plugins[plugin.resource] = plugin
        self._spawn(self._list_and_watch(plugin))
        if before:
            await before.close()

    async def _serve(self, server: grpc.aio.Server, path: Path) -> float:
        """Serves on a path whose dead socket remains when the server stops; since when.

        gRPC removes the path to which it is bound, so it is bound to another one and linked here.
        """
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        bound = self.directory / f".{path.parent.name}.sock"
        server.add_insecure_port(f"unix:{bound}")
        await server.start()
        self._servers.append(server)
        path.unlink(missing_ok=True)
        # Before the link: a process that waits for it may run first.
        since = time.monotonic()
        os.link(bound, path)
        return since

    async def _list_and_watch(self, plugin: Plugin) -> None:
        plugin.stream = plugin.stub.ListAndWatch(api.Empty())
        try:
            async for response in plugin.stream:
                if plugin.reported is None:
                    plugin.reported = time.monotonic()
                plugin.devices = {device.ID: device for device in response.devices}
                self._manager.checkpoint.register(plugin.resource, plugin.healthy)
                states = (
                    f"{device_id} {device.health}" for device_id, device in plugin.devices.items()
                )
                log.info("%s: %s", plugin.resource, ", ".join(states) or "no devices")
                self._notify()
        except grpc.aio.AioRpcError:
            pass
        except asyncio.CancelledError:
            if not plugin.is_closed:
                raise
        for device in plugin.devices.values():
            device.health = "Unhealthy"
        log.info("%s: the stream ended, all devices are unhealthy", plugin.resource)
        self._notify()

    async def _admit_static_pods(self, bound: float) -> None:
        if isinstance(self._admission, After):
            await asyncio.sleep(bound + self._admission.seconds - time.monotonic())
        else:
            with contextlib.suppress(asyncio.TimeoutError):
                await self.until(self._has_what_is_needed, self._admission.at_latest)
        after = (time.monotonic() - bound) * 1000
        log.info(
            "admitting %d static pods, %.0f ms after the socket", len(self._static_pods), after
        )
        for pod in self._static_pods:
            with contextlib.suppress(AdmissionError):
                await self.admit(pod)

    def _has_what_is_needed(self) -> bool:
        """Whether the plugins have reported the resources that static pods need now."""
        return all(
            self._manager.is_reported(resource)
            for pod in self._static_pods
            if self._needs_devices(pod)
            for resource in pod.requests
        )

    def _notify(self) -> None:
        self._changed.set()
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))
