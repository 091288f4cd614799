"""The kubelet's side: its folder for device plugins, its socket, and registering with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import grpc

from isolcpus_dp import inotify
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.deviceplugin import OPTIONS

# The kubelet itself gives up dialling back after 10 s, and its words say more than our deadline.
_REGISTER_SECONDS = 15.0

# Between bind(), which inotify shows, and listen(), which it does not, a new socket refuses
# connections. It is tried again at these distances, in seconds, and then left for dead.
_BIND_TO_LISTEN = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512)


class Refused(Exception):
    """The kubelet answered a registration with an error; the text is the kubelet's."""


class Left(Exception):
    """The kubelet, or its folder, went away while it was needed; one sentence."""


def device_plugins(kubelet_dir: Path) -> Path:
    """Where the kubelet and its device plugins have their sockets."""
    return kubelet_dir / "device-plugins"


def registration_socket(kubelet_dir: Path) -> Path:
    """Where the kubelet serves Registration."""
    return device_plugins(kubelet_dir) / "kubelet.sock"


def creation(path: Path) -> int | None:
    """When a socket was bound, in nanoseconds: tells a new one from the one before it.

    A socket's modification time never changes afterwards, while its inode number is soon used
    again. None if there is no such file.
    """
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return None


async def live_socket(path: Path, other_than: int | None = None) -> int:
    """Waits until somebody listens on the kubelet's socket; its creation() is returned.

    A socket created at `other_than` is passed over. A kubelet that ended leaves its socket
    behind, dead: that is waited out. Raises Left if the folder goes away.
    """
    changed = asyncio.Event()
    gone = False

    def on_entry(name: str) -> None:
        if name == path.name:
            changed.set()

    def on_folder(name: str) -> None:
        nonlocal gone
        if name == path.parent.name:
            gone = True
            changed.set()

    with contextlib.ExitStack() as watches:
        try:
            watches.enter_context(
                inotify.Watch(path.parent, inotify.IN_CREATE | inotify.IN_MOVED_TO, on_entry)
            )
            # A folder's own watch is silent as long as a bound socket of ours lies in it.
            watches.enter_context(
                inotify.Watch(
                    path.parent.parent, inotify.IN_DELETE | inotify.IN_MOVED_FROM, on_folder
                )
            )
        except FileNotFoundError:
            raise Left(f"{path.parent} was removed or moved") from None
        delays = iter(_BIND_TO_LISTEN)
        while True:
            created = _listening_since(path)
            if created is not None and created != other_than:
                return created
            try:
                await asyncio.wait_for(changed.wait(), next(delays, None))
            except asyncio.TimeoutError:
                continue
            if gone:
                raise Left(f"{path.parent} was removed or moved")
            changed.clear()
            delays = iter(_BIND_TO_LISTEN)


def _listening_since(path: Path) -> int | None:
    """creation() of the socket if it takes connections."""
    created = creation(path)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.setblocking(False)
        try:
            connection.connect(str(path))
        except BlockingIOError:
            pass  # its queue of connections is full: somebody listens
        except OSError:
            return None
    return created if created == creation(path) else None


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


def mark_registered(marker: Path, created: int) -> None:
    """Notes with which socket we are registered: the marker takes over its time of creation.

    isolcpus-dp-kubelet.service compares the two times before it restarts the daemon.
    """
    marker.touch(mode=0o600)
    os.utime(marker, ns=(created, created))
