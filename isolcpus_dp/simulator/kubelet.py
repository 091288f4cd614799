"""A kubelet's device manager: it registers plugins, admits pods and hands devices out.

A model of kubelet 1.36 as a device plugin meets it, without the API server and the container
runtime behind it. `python3 -m isolcpus_dp.simulator` is one as a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from isolcpus_dp import config
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.api import podresources_pb2 as resources
from isolcpus_dp.api import podresources_pb2_grpc as resources_rpc
from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator import topology
from isolcpus_dp.simulator.devices import Checkpoint, Entry, by_node, choose

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

log = logging.getLogger("kubelet")

# Measured on kubelet 1.36: its static pods are admitted 62 to 79 ms after its socket is bound.
ADMIT_SECONDS = 0.060
_DIAL_SECONDS = 10.0


class AdmissionError(Exception):
    """A pod cannot have its devices: the kubelet's UnexpectedAdmissionError."""


@dataclass(frozen=True)
class Pod:
    """A pod of one container, and how many devices of which resources it asks for."""

    name: str
    requests: Mapping[str, int]


@dataclass
class Plugin:
    """A registered resource: the connection to its plugin and the devices it reported last."""

    resource: str
    channel: grpc.aio.Channel
    gives_preferences: bool
    devices: dict[str, api.Device] = field(default_factory=dict)
    reported: float = 0.0  # time.monotonic() of its first devices

    @property
    def stub(self) -> rpc.DevicePluginAsyncStub:
        return rpc.DevicePluginStub(self.channel)

    @property
    def healthy(self) -> frozenset[str]:
        return frozenset(id for id, device in self.devices.items() if device.health == "Healthy")

    def nodes(self, ids: Iterable[str]) -> dict[str, int | None]:
        """The NUMA node of each of these devices, if it has one."""
        return {id: next((n.ID for n in self.devices[id].topology.nodes), None) for id in ids}

    async def prefer(
        self, available: frozenset[str], must_include: frozenset[str], size: int
    ) -> Iterable[str]:
        """Which devices the plugin would give; none if it does not say."""
        request = api.ContainerPreferredAllocationRequest(
            available_deviceIDs=available, must_include_deviceIDs=must_include, allocation_size=size
        )
        answer = await self.stub.GetPreferredAllocation(
            api.PreferredAllocationRequest(container_requests=[request])
        )
        return answer.container_responses[0].deviceIDs


class Kubelet(rpc.RegistrationServicer, resources_rpc.PodResourcesListerServicer):
    """One run of a kubelet, from `start` to `stop`; the next run is another object.

    `containers` is a folder with a file for every running container. It outlives a kubelet, as
    containers do; empty it for a reboot.
    """

    def __init__(
        self,
        directory: Path,
        containers: Path,
        static_pods: Iterable[Pod] = (),
        admit_seconds: float = ADMIT_SECONDS,
        topology_policy: str = "none",
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self.plugins: dict[str, Plugin] = {}
        self.pods: dict[str, str] = {}  # by name: Running, or why it failed
        self.registrations = 0
        self.bound = 0.0  # time.monotonic() of its socket's appearance
        self.directory = directory
        self._folder = paths.device_plugins(directory)
        self._containers = containers
        self._static_pods = tuple(static_pods)
        self._admit_seconds = admit_seconds
        self._topology_policy = topology_policy
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._servers: list[grpc.aio.Server] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Wipes the plugins' sockets, binds its own at once after, later admits its static pods."""
        self._containers.mkdir(parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._checkpoint = Checkpoint(paths.checkpoint(self.directory))
        lister, registrar = grpc.aio.server(), grpc.aio.server()
        resources_rpc.add_PodResourcesListerServicer_to_server(self, lister)
        rpc.add_RegistrationServicer_to_server(self, registrar)
        await self._serve(lister, paths.pod_resources_socket(self.directory))
        for entry in self._folder.iterdir():
            if stat.S_ISSOCK(entry.lstat().st_mode):
                entry.unlink()
        await self._serve(registrar, paths.registration_socket(self.directory))
        self.bound = time.monotonic()
        log.info("serving device plugin registration")
        self._spawn(self._admit_static_pods())

    async def stop(self) -> None:
        """Ends as a process does: connections drop, and its sockets stay behind, dead."""
        for task in self._tasks:
            task.cancel()
        for plugin in self.plugins.values():
            await plugin.channel.close()
        for server in self._servers:
            await server.stop(grace=None)

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0) -> None:
        """Waits until a change here makes the condition true. Raises asyncio.TimeoutError."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())

    def allocatable(self, resource: str) -> int:
        """How many devices of a resource the node status shows as allocatable."""
        plugin = self.plugins.get(resource)
        return len(plugin.healthy) if plugin else 0

    def node_status(self) -> dict[str, object]:
        """What the API server would be told of the node, and each device besides."""
        # What was registered with the kubelet before has no devices until it is again.
        known = [*self.plugins, *(self._checkpoint.registered.keys() - self.plugins.keys())]
        return {
            "capacity": {
                name: len(self.plugins[name].devices) if name in self.plugins else 0
                for name in known
            },
            "allocatable": {name: self.allocatable(name) for name in known},
            "devices": {
                name: {
                    id: [device.health, *(node.ID for node in device.topology.nodes)]
                    for id, device in plugin.devices.items()
                }
                for name, plugin in self.plugins.items()
            },
            "registrations": self.registrations,
            "pods": self.pods,
        }

    async def admit(self, pod: Pod) -> Mapping[str, api.ContainerAllocateResponse]:
        """Admits a pod and starts its container, with what came of Allocate for each resource.

        A pod whose container still runs is let through unasked. Raises AdmissionError: the pod
        is Failed for good.
        """
        container = self._containers / pod.name
        try:
            if not container.exists():
                node = topology.affinity(self._topology_policy, self._wishes(pod))
                for resource, size in pod.requests.items():
                    await self._allocate(pod.name, resource, size, node)
        except topology.TopologyAffinityError as error:
            self.pods[pod.name] = f"Failed: TopologyAffinityError: {error}"
            raise AdmissionError(str(error)) from error
        except AdmissionError as error:
            # What it was given of other resources is free for the next pod.
            self._checkpoint.release(pod.name)
            self.pods[pod.name] = f"Failed: UnexpectedAdmissionError: {error}"
            raise
        else:
            container.touch()
            self.pods[pod.name] = "Running"
        finally:
            log.info("pod %s is %s", pod.name, self.pods.get(pod.name))
            self._notify()
        return self.answers(pod.name)

    def answers(self, pod_name: str) -> Mapping[str, api.ContainerAllocateResponse]:
        """What came of Allocate for each resource that a pod holds."""
        return {
            resource: api.ContainerAllocateResponse.FromString(entry.answer)
            for resource, entry in self._checkpoint.of_pod(pod_name).items()
        }

    def held_by(self, pod_name: str, resource: str) -> frozenset[str]:
        """The ids of the devices that a pod holds."""
        entry = self._checkpoint.of_pod(pod_name).get(resource)
        return entry.ids if entry else frozenset()

    def delete(self, pod_name: str) -> None:
        """Ends a pod: its devices are free again."""
        self.pods.pop(pod_name, None)
        (self._containers / pod_name).unlink(missing_ok=True)
        self._checkpoint.release(pod_name)

    async def Register(self, request: api.RegisterRequest, context: Context) -> api.Empty:
        log.info("got a registration of %s at %s", request.resource_name, request.endpoint)
        self.registrations += 1
        try:
            await self.connect(request)
        except ValueError as error:
            log.info("refused it: %s", error)
            # An error of Go has no gRPC status of its own: it arrives as UNKNOWN with its text.
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return api.Empty()

    async def connect(self, request: api.RegisterRequest) -> None:
        """Checks a registration and dials the plugin back. Raises ValueError."""
        if request.version != "v1beta1":
            raise ValueError(f"requested API version {request.version!r} is not supported")
        try:
            config.check_resource_name(request.resource_name)
        except ValueError:
            raise ValueError(f"the ResourceName {request.resource_name!r} is invalid") from None
        channel = grpc.aio.insecure_channel(
            f"unix:{self._folder / request.endpoint}",
            options=[("grpc.default_authority", "localhost")],
        )
        try:
            await asyncio.wait_for(channel.channel_ready(), _DIAL_SECONDS)
        except asyncio.TimeoutError:
            await channel.close()
            raise ValueError("failed to dial device plugin: context deadline exceeded") from None
        plugin = Plugin(request.resource_name, channel, gives_preferences=False)
        options = await plugin.stub.GetDevicePluginOptions(api.Empty())
        plugin.gives_preferences = options.get_preferred_allocation_available
        before = self.plugins.get(plugin.resource)
        self.plugins[plugin.resource] = plugin
        if before:
            await before.channel.close()
        self._spawn(self._list_and_watch(plugin))

    async def List(
        self, request: resources.ListPodResourcesRequest, context: Context
    ) -> resources.ListPodResourcesResponse:
        return resources.ListPodResourcesResponse(
            pod_resources=[
                resources.PodResources(
                    name=pod,
                    namespace="default",
                    containers=[
                        resources.ContainerResources(
                            name="main",
                            devices=[
                                self._container_devices(entry.resource, entry.ids)
                                for entry in self._checkpoint.of_pod(pod).values()
                            ],
                        )
                    ],
                )
                for pod in dict.fromkeys((*self.pods, *self._checkpoint.pods()))
            ]
        )

    async def GetAllocatableResources(
        self, request: resources.AllocatableResourcesRequest, context: Context
    ) -> resources.AllocatableResourcesResponse:
        return resources.AllocatableResourcesResponse(
            devices=[
                self._container_devices(plugin.resource, [id])
                for plugin in self.plugins.values()
                for id in sorted(plugin.healthy)
            ]
        )

    def _container_devices(self, resource: str, ids: Iterable[str]) -> resources.ContainerDevices:
        plugin = self.plugins.get(resource)
        devices = [plugin.devices[id] for id in ids if id in plugin.devices] if plugin else []
        nodes = {node.ID for device in devices for node in device.topology.nodes}
        topology = resources.TopologyInfo(nodes=[resources.NUMANode(ID=node) for node in nodes])
        return resources.ContainerDevices(resource_name=resource, device_ids=ids, topology=topology)

    async def _serve(self, server: grpc.aio.Server, path: Path) -> None:
        """Serves on a path that stays behind, dead, when the server stops.

        gRPC removes the path it was bound to, so that one lies beside and is linked into place.
        """
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        beside = self.directory / f".{path.parent.name}.sock"
        server.add_insecure_port(f"unix:{beside}")
        await server.start()
        path.unlink(missing_ok=True)
        os.link(beside, path)
        self._servers.append(server)

    async def _list_and_watch(self, plugin: Plugin) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            async for response in plugin.stub.ListAndWatch(api.Empty()):
                plugin.reported = plugin.reported or time.monotonic()
                plugin.devices = {device.ID: device for device in response.devices}
                self._checkpoint.register(plugin.resource, plugin.healthy)
                states = (f"{id} {device.health}" for id, device in plugin.devices.items())
                log.info("%s: %s", plugin.resource, ", ".join(states) or "no devices")
                self._notify()
        for device in plugin.devices.values():
            device.health = "Unhealthy"
        log.info("%s: the stream ended, all devices are unhealthy", plugin.resource)
        self._notify()

    async def _admit_static_pods(self) -> None:
        await asyncio.sleep(self._admit_seconds)
        for pod in self._static_pods:
            with contextlib.suppress(AdmissionError):
                await self.admit(pod)

    def _wishes(self, pod: Pod) -> topology.Wishes:
        """What is free of the resources that a pod still needs, and how much of it it needs."""
        return {
            resource: (self.plugins[resource].nodes(self._free(resource)), size)
            for resource, size in pod.requests.items()
            if resource in self.plugins and not self.held_by(pod.name, resource)
        }

    def _free(self, resource: str) -> frozenset[str]:
        return self.plugins[resource].healthy - self._checkpoint.held(resource)

    async def _allocate(self, pod_name: str, resource: str, size: int, node: int | None) -> None:
        """Gives devices to a pod, aligned to the topology manager's NUMA node if it names one."""
        if resource not in self._checkpoint.registered:
            raise AdmissionError(f"cannot allocate unregistered device {resource}")
        plugin = self.plugins.get(resource)
        if plugin is None or not plugin.healthy:
            raise AdmissionError(
                f"no healthy devices present; cannot allocate unhealthy devices {resource}"
            )
        held = self.held_by(pod_name, resource)
        if not held <= plugin.healthy:
            raise AdmissionError(
                "previously allocated devices are no longer healthy;"
                f" cannot allocate unhealthy devices {resource}"
            )
        if held:
            return  # the answer in the checkpoint is used again
        free = self._free(resource)
        if len(free) < size:
            raise AdmissionError(
                f"requested number of devices unavailable for {resource}."
                f" Requested: {size}, Available: {len(free)}"
            )
        prefer = plugin.prefer if plugin.gives_preferences else None
        try:
            ids = await choose(free, size, prefer, topology.aligned(plugin.nodes(free), node))
        except grpc.aio.AioRpcError as error:
            raise AdmissionError(
                "GetPreferredAllocation failed due to rpc error:"
                f" code = {error.code().name} desc = {error.details()}"
            ) from error
        answer = await self._ask_to_allocate(plugin, ids)
        self._checkpoint.allocate(pod_name, Entry(resource, by_node(plugin.nodes(ids)), answer))

    async def _ask_to_allocate(self, plugin: Plugin, ids: frozenset[str]) -> bytes:
        request = api.ContainerAllocateRequest(devices_ids=sorted(ids))
        try:
            answer = await plugin.stub.Allocate(api.AllocateRequest(container_requests=[request]))
        except grpc.aio.AioRpcError as error:
            raise AdmissionError(
                "Allocate failed due to rpc error:"
                f" code = {error.code().name} desc = {error.details()}"
            ) from error
        return answer.container_responses[0].SerializeToString()

    def _notify(self) -> None:
        self._changed.set()
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))
