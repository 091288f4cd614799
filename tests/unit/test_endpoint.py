"""The plugin's socket: binding it, obstacles, and binding it again."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from isolcpus_dp import pool
from isolcpus_dp.api import deviceplugin_pb2 as api
from isolcpus_dp.api import deviceplugin_pb2_grpc as rpc
from isolcpus_dp.config import Config, ConfigError
from isolcpus_dp.host import machine, sockets
from isolcpus_dp.kubelet import paths
from isolcpus_dp.kubelet.endpoint import Endpoint, EndpointError
from isolcpus_dp.kubelet.plugin import DevicePlugin
from isolcpus_dp.kubelet.registration import OPTIONS

from .conftest import MakeUp


@pytest.fixture
def plugin(make_up: MakeUp) -> DevicePlugin:
    present = machine.read(make_up("2x2x2", {1, 2, 5, 6}).root)
    return DevicePlugin(present, pool.make(present, Config())[0], lambda cpus: [])


def no_links(*_: object) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


async def answers(path: Path) -> bool:
    """Whether the plugin answers on its socket."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        stub = rpc.DevicePluginStub(channel)
        return bool(await stub.GetDevicePluginOptions(api.Empty()) == OPTIONS)


async def test_publishing_again_and_again_leaks_no_descriptors(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    path, descriptors = tmp_path / "plugin.sock", []
    endpoint = Endpoint(path, plugin)
    for _ in range(10):
        path.unlink(missing_ok=True)
        await endpoint.publish()
        assert path.is_socket()
        descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
    await endpoint.close()
    assert max(descriptors[3:]) <= max(descriptors[:3])
    assert not path.exists()


async def test_two_endpoints_published_at_once_do_not_deadlock(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    paths = [tmp_path / "one.sock", tmp_path / "other.sock"]
    endpoints = [Endpoint(path, plugin) for path in paths]

    def blocked(*_: object) -> NoReturn:
        raise AssertionError("the event loop is blocked")

    before = signal.signal(signal.SIGALRM, blocked)
    signal.alarm(30)
    for _ in range(5):
        for path in paths:
            path.unlink(missing_ok=True)
        await asyncio.gather(*(one.publish() for one in endpoints))
        assert all(path.is_socket() for path in paths)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    for one in endpoints:
        await one.close()


async def test_socket_that_the_kubelet_removed_is_the_same_one_again(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    path = tmp_path / "plugin.sock"
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    before = sockets.identify(path)
    path.unlink()
    await endpoint.publish()
    assert sockets.identify(path) == before
    assert await answers(path)
    await endpoint.close()
    assert not path.exists()
    assert not (tmp_path / ".isolcpus-dp").exists()


async def test_dead_sockets_of_killed_processes_are_removed(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    path, own = tmp_path / "plugin.sock", tmp_path / ".isolcpus-dp"
    own.mkdir()
    for dead in (path, own / "0", own / "1"):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(dead))
            killed.listen()
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    assert path.samefile(own / "0")
    await endpoint.close()
    assert not path.exists()


async def test_socket_of_another_daemon_is_kept(plugin: DevicePlugin, tmp_path: Path) -> None:
    first, second = (Endpoint(tmp_path / name, plugin) for name in ("a.sock", "b.sock"))
    await first.publish()
    await second.publish()
    assert (tmp_path / "b.sock").samefile(tmp_path / ".isolcpus-dp/1")
    await second.close()
    assert (tmp_path / "a.sock").samefile(tmp_path / ".isolcpus-dp/0")
    await first.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "{0} is a directory, not a socket: remove it (rmdir {0})"),
        (Path.touch, "{0} is a file, not a socket: remove it, or use another path"),
    ],
)
async def test_file_at_the_path_that_is_no_socket_is_an_error(
    plugin: DevicePlugin, tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "plugin.sock"
    make(path)
    with pytest.raises(EndpointError) as caught:
        await Endpoint(path, plugin).publish()
    assert str(caught.value) == reason.format(path)


async def test_removed_socket_of_the_server_is_bound_again(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    path = tmp_path / "plugin.sock"
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    (tmp_path / ".isolcpus-dp/0").unlink()
    path.unlink()
    await endpoint.publish()
    assert path.samefile(tmp_path / ".isolcpus-dp/0")
    assert await answers(path)
    await endpoint.close()


async def test_server_socket_of_another_daemon_is_not_removed(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    own = tmp_path / ".isolcpus-dp/0"
    endpoint = Endpoint(tmp_path / "plugin.sock", plugin)
    await endpoint.publish()
    own.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(own))
        endpoint.remove()
        assert own.exists()
    await endpoint.close()


@pytest.mark.parametrize("obstacle", ["no hard links", "a file", "a long path"])
async def test_path_itself_is_bound_where_no_link_can_be_made(
    plugin: DevicePlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    directory = tmp_path
    if obstacle == "no hard links":
        monkeypatch.setattr(os, "link", no_links)
    elif obstacle == "a file":
        (tmp_path / ".isolcpus-dp").touch()
    else:
        directory = tmp_path / ("x" * (107 - len(str(tmp_path)) - len("//a-b.sock")))
        directory.mkdir()
    path = directory / "a-b.sock"
    endpoint = Endpoint(path, plugin)
    for _ in range(3):
        await endpoint.publish()
        assert await answers(path)
        path.unlink()
    await endpoint.publish()
    await endpoint.close()
    assert not path.exists()
    assert (directory / ".isolcpus-dp").exists() == (obstacle == "a file")


async def test_socket_may_disappear_while_it_is_removed(
    plugin: DevicePlugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet removes all sockets when it starts, which is when a worker ends."""
    path = tmp_path / "plugin.sock"
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    identity = sockets.identify(path)
    path.unlink()
    monkeypatch.setattr(sockets, "identify", lambda path: identity)
    await endpoint.close()
    assert not path.exists()


async def test_endpoint_in_a_locked_directory_is_an_error(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with pytest.raises(EndpointError, match=r"has been locked for 0 s by another process"):
        await Endpoint(tmp_path / "plugin.sock", plugin, lock_seconds=0.1).publish()
    os.close(directory)


async def test_endpoint_of_another_process_is_an_error(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    path = tmp_path / "held.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(EndpointError) as caught:
            await Endpoint(path, plugin).publish()
    assert str(caught.value).startswith(f"{path} is held by process {os.getpid()} (")
    assert str(caught.value).endswith("stop that process first")


def test_too_long_path_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "device-plugins" / f"{'x' * 107}.sock"
    with pytest.raises(ConfigError) as caught:
        paths.endpoint(tmp_path, path.name)
    assert str(caught.value) == (
        f"{path} is longer than the 107 bytes that a socket's path may have:"
        " shorten ResourceName= or --kubelet-dir"
    )


async def test_endpoint_in_an_absent_directory_is_an_error(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    directory = tmp_path / "absent"
    with pytest.raises(EndpointError) as caught:
        await Endpoint(directory / "plugin.sock", plugin).publish()
    assert str(caught.value) == (
        f"{directory} cannot be opened: No such file or directory: it is the kubelet's directory"
        " for device plugins; see --kubelet-dir"
    )


async def test_endpoint_keeps_its_socket_if_its_mode_changes(
    plugin: DevicePlugin, tmp_path: Path
) -> None:
    path = tmp_path / "plugin.sock"
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    before = path.stat().st_ino, path.stat().st_mtime_ns
    path.chmod(0o660)
    await endpoint.publish()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    await endpoint.close()


@pytest.mark.parametrize("ending", ["close", "remove"])
async def test_socket_that_another_process_has_bound_since_is_kept(
    plugin: DevicePlugin, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / "plugin.sock"
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    before = path.rename(tmp_path / "before.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        os.utime(path, ns=(5, 5))
        if ending == "close":
            await endpoint.close()
        else:
            endpoint.remove()
        assert path.stat().st_mtime_ns == 5
        path.unlink()
    before.rename(path)
    await endpoint.close()
    assert not path.exists()


async def test_removed_socket_is_no_longer_there(plugin: DevicePlugin, tmp_path: Path) -> None:
    path = tmp_path / "plugin.sock"
    endpoint = Endpoint(path, plugin)
    await endpoint.publish()
    os.link(path, tmp_path / "kept.sock")
    endpoint.remove()
    assert not path.exists()
    (tmp_path / "kept.sock").rename(path)
    await endpoint.close()
