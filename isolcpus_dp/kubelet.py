"""The kubelet's side: its folder for device plugins, its socket, and registering with it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.deviceplugin import OPTIONS

if TYPE_CHECKING:
    from isolcpus_dp.api import podresources_pb2 as resources

# The kubelet itself gives up dialling back after 10 s, and its words say more than our deadline.
_REGISTER_SECONDS = 15.0
_LIST_SECONDS = 5.0


class Refused(Exception):
    """The kubelet answered a registration with an error; the text is the kubelet's."""


class Left(Exception):
    """The kubelet, or its folder, went away while it was needed; one sentence."""


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


def device_plugins(kubelet_dir: Path) -> Path:
    """Where the kubelet and its device plugins have their sockets."""
    return kubelet_dir / "device-plugins"


def registration_socket(kubelet_dir: Path) -> Path:
    """Where the kubelet serves Registration."""
    return device_plugins(kubelet_dir) / "kubelet.sock"


async def register(path: Path, resource_name: str, endpoint: str) -> None:
    """Registers the plugin that serves `endpoint`, a file name beside the kubelet's socket.

    Raises Refused, or Left if the kubelet goes away before it has answered.
    """
    request = api.RegisterRequest(
        version="v1beta1", endpoint=endpoint, resource_name=resource_name, options=OPTIONS
    )
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        try:
            await rpc.RegistrationStub(channel).Register(request, timeout=_REGISTER_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise Left("the kubelet left before it answered the registration") from error
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Left(
                    f"the kubelet did not answer the registration in {_REGISTER_SECONDS:.0f} s"
                ) from error
            raise Refused(error.details() or error.code().name) from error


def allocations(kubelet_dir: Path) -> list[Allocation]:
    """Who holds which devices, as the kubelet's pod resources socket tells. Raises Unseen.

    For a command that looks and ends; it blocks.
    """
    from isolcpus_dp.api import podresources_pb2 as resources
    from isolcpus_dp.api import podresources_pb2_grpc as resources_rpc

    path = _pod_resources(kubelet_dir)
    with grpc.insecure_channel(f"unix:{path}") as channel, _answering(path):
        return _held(
            resources_rpc.PodResourcesListerStub(channel).List(
                resources.ListPodResourcesRequest(), timeout=_LIST_SECONDS
            )
        )


async def ask_allocations(kubelet_dir: Path) -> list[Allocation]:
    """The same, for a daemon that has metrics to tell. Raises Unseen."""
    # Any other daemon never asks, and is smaller without these.
    from isolcpus_dp.api import podresources_pb2 as resources
    from isolcpus_dp.api import podresources_pb2_grpc as resources_rpc

    path = _pod_resources(kubelet_dir)
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        with _answering(path):
            return _held(
                await resources_rpc.PodResourcesListerStub(channel).List(
                    resources.ListPodResourcesRequest(), timeout=_LIST_SECONDS
                )
            )


def _pod_resources(kubelet_dir: Path) -> Path:
    """The socket on which the kubelet tells who holds what. Raises Unseen if there is none."""
    path = kubelet_dir / "pod-resources" / "kubelet.sock"
    # gRPC would say of a missing socket that it failed to connect, after a while.
    try:
        path.stat()
    except PermissionError:
        raise Unseen(f"{path} is not for every user: try it as root") from None
    except OSError:
        raise Unseen(f"there is no {path}: does the kubelet run?") from None
    return path


@contextlib.contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Within the block, an answer that does not come is Unseen."""
    try:
        yield
    except grpc.RpcError as error:
        details = getattr(error, "details", str)
        raise Unseen(f"{path} does not answer: {details()}") from error


def _held(listed: resources.ListPodResourcesResponse) -> list[Allocation]:
    return [
        Allocation(pod.namespace, pod.name, container.name, held.resource_name, (*held.device_ids,))
        for pod in listed.pod_resources
        for container in pod.containers
        for held in container.devices
    ]


def mark_registered(marker: Path, created: int) -> None:
    """Notes with which socket we are registered: the marker takes over its time of creation.

    isolcpus-dp-kubelet.service compares the two times before it restarts the daemon.
    """
    marker.touch(mode=0o600)
    os.utime(marker, ns=(created, created))
