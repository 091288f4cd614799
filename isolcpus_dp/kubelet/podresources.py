"""Asks the kubelet which container holds which devices, on its pod resources socket.

For the reports and the metrics; the device plugin itself does not need it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from isolcpus_dp.api import podresources_pb2 as api
from isolcpus_dp.api import podresources_pb2_grpc as rpc
from isolcpus_dp.kubelet import paths

if TYPE_CHECKING:
    from isolcpus_dp.pool import Pool

_LIST_SECONDS = 5.0


class Unseen(Exception):
    """The kubelet cannot be asked; the message is one sentence with the reason."""


@dataclass(frozen=True)
class Allocation:
    """The devices of one resource that a container holds."""

    namespace: str
    pod: str
    container: str
    resource: str
    ids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}/{self.container}"


@dataclass(frozen=True)
class Listing:
    """The containers of the kubelet's pods, and the devices of all resources that they hold."""

    # namespace/pod/container, also of those that hold no devices. Init containers are only listed
    # if they run beside the others (kubelet: pkg/kubelet/apis/podresources/server_v1.go).
    containers: frozenset[str]
    allocations: tuple[Allocation, ...]


def look(kubelet_dir: Path) -> Listing:
    """What the kubelet lists. Blocks for at most 5 s. Raises Unseen."""
    path = _pod_resources(kubelet_dir)
    with grpc.insecure_channel(f"unix:{path}") as channel, _answering(path):
        listed = rpc.PodResourcesListerStub(channel).List(
            api.ListPodResourcesRequest(), timeout=_LIST_SECONDS
        )
    return Listing(
        containers=frozenset(
            f"{pod.namespace}/{pod.name}/{container.name}"
            for pod in listed.pod_resources
            for container in pod.containers
        ),
        allocations=tuple(_held(listed)),
    )


async def ask(kubelet_dir: Path) -> list[Allocation]:
    """The allocations of all resources, without blocking the event loop. Raises Unseen."""
    path = _pod_resources(kubelet_dir)
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        with _answering(path):
            return _held(
                await rpc.PodResourcesListerStub(channel).List(
                    api.ListPodResourcesRequest(), timeout=_LIST_SECONDS
                )
            )


def _pod_resources(kubelet_dir: Path) -> Path:
    """The kubelet's pod resources socket. Raises Unseen if it is missing or not readable."""
    path = paths.pod_resources_socket(kubelet_dir)
    # For a missing socket gRPC would only report, after a while, that it could not connect.
    try:
        path.stat()
    except PermissionError:
        raise Unseen(f"{path} is readable by root only: run this as root") from None
    except OSError:
        raise Unseen(paths.missing(path)) from None
    return path


@contextlib.contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Turns a gRPC error in the block into Unseen."""
    try:
        yield
    except grpc.RpcError as error:
        details = getattr(error, "details", str)
        raise Unseen(f"{path} does not answer: {details()}") from error


def _held(listed: api.ListPodResourcesResponse) -> list[Allocation]:
    return [
        Allocation(pod.namespace, pod.name, container.name, held.resource_name, (*held.device_ids,))
        for pod in listed.pod_resources
        for container in pod.containers
        for held in container.devices
    ]


def owned(pool: Pool, allocation: Allocation) -> frozenset[int]:
    """The CPUs of an allocation's devices; for a device no longer offered, its lowest CPU."""
    known = pool.cpus_of(device_id for device_id in allocation.ids if device_id in pool.devices)
    return known | {
        int(device_id)
        for device_id in allocation.ids
        if device_id not in pool.devices and device_id.isdecimal()
    }
