"""Who holds which devices, as the kubelet tells on its socket for pod resources.

For those who look at a host, and for metrics; the device plugin itself never needs to know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from isolcpus_dp.api import podresources_pb2 as api
from isolcpus_dp.api import podresources_pb2_grpc as rpc
from isolcpus_dp.kubelet import paths
from isolcpus_dp.pool import Pool

_LIST_SECONDS = 5.0


class Unseen(Exception):
    """The kubelet cannot be asked who holds what; one sentence says why."""


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


def look(kubelet_dir: Path) -> list[Allocation]:
    """Who holds which devices, as the kubelet's pod resources socket tells. Raises Unseen.

    For a command that looks and ends; it blocks.
    """
    path = _pod_resources(kubelet_dir)
    with grpc.insecure_channel(f"unix:{path}") as channel, _answering(path):
        return _held(
            rpc.PodResourcesListerStub(channel).List(
                api.ListPodResourcesRequest(), timeout=_LIST_SECONDS
            )
        )


async def ask(kubelet_dir: Path) -> list[Allocation]:
    """The same, for a daemon that has metrics to tell. Raises Unseen."""
    path = _pod_resources(kubelet_dir)
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        with _answering(path):
            return _held(
                await rpc.PodResourcesListerStub(channel).List(
                    api.ListPodResourcesRequest(), timeout=_LIST_SECONDS
                )
            )


def _pod_resources(kubelet_dir: Path) -> Path:
    """The socket on which the kubelet tells who holds what. Raises Unseen if there is none."""
    path = paths.pod_resources_socket(kubelet_dir)
    # gRPC would say of a missing socket that it failed to connect, after a while.
    try:
        path.stat()
    except PermissionError:
        raise Unseen(f"{path} is readable by root only: run this as root") from None
    except OSError:
        raise Unseen(f"{path} does not exist: is the kubelet running?") from None
    return path


@contextlib.contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Within the block, an answer that does not come is Unseen."""
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
    known = pool.cpus_of(id for id in allocation.ids if id in pool.devices)
    return known | {int(id) for id in allocation.ids if id not in pool.devices and id.isdecimal()}
