"""The simulated kubelet's PodResourcesLister: which container holds which devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from isolcpus_dp.api import podresources_pb2 as resources
from isolcpus_dp.api import podresources_pb2_grpc as resources_rpc

if TYPE_CHECKING:
    import grpc

    from isolcpus_dp.simulator.manager import DeviceManager

    Context = grpc.aio.ServicerContext[Any, Any]


class PodResources(resources_rpc.PodResourcesListerServicer):
    """Answers from the device manager; `pods` has all pods by name."""

    def __init__(self, manager: DeviceManager, pods: Mapping[str, str]) -> None:
        self._manager = manager
        self._pods = pods
        self.listed = 0  # how many times List was called

    async def List(
        self, request: resources.ListPodResourcesRequest, context: Context
    ) -> resources.ListPodResourcesResponse:
        self.listed += 1
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
                                for entry in self._manager.checkpoint.of_pod(pod).values()
                            ],
                        )
                    ],
                )
                for pod in dict.fromkeys((*self._pods, *self._manager.checkpoint.pods()))
            ]
        )

    async def GetAllocatableResources(
        self, request: resources.AllocatableResourcesRequest, context: Context
    ) -> resources.AllocatableResourcesResponse:
        return resources.AllocatableResourcesResponse(
            devices=[
                self._container_devices(plugin.resource, [device_id])
                for plugin in self._manager.plugins.values()
                for device_id in sorted(plugin.healthy)
            ]
        )

    def _container_devices(self, resource: str, ids: Iterable[str]) -> resources.ContainerDevices:
        plugin = self._manager.plugins.get(resource)
        devices = (
            [plugin.devices[device_id] for device_id in ids if device_id in plugin.devices]
            if plugin
            else []
        )
        nodes = {node.ID for device in devices for node in device.topology.nodes}
        topology = resources.TopologyInfo(nodes=[resources.NUMANode(ID=node) for node in nodes])
        return resources.ContainerDevices(resource_name=resource, device_ids=ids, topology=topology)
