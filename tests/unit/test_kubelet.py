"""The kubelet's folder, its socket, and the marker of a registration."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.kubelet import (
    Left,
    creation,
    device_plugins,
    live_socket,
    mark_registered,
    registration_socket,
)

SECOND = 1_000_000_000
PATIENCE = 10  # seconds until a test that waits has failed


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as unbound:
        yield unbound


def serve(listener: socket.socket, path: Path, created: int) -> None:
    listener.bind(str(path))
    listener.listen()
    os.utime(path, ns=(created, created))


def test_kubelets_folder_and_socket() -> None:
    kubelet_dir = Path("/var/lib/kubelet")
    assert device_plugins(kubelet_dir) == Path("/var/lib/kubelet/device-plugins")
    assert registration_socket(kubelet_dir) == Path("/var/lib/kubelet/device-plugins/kubelet.sock")


def test_creation_of_a_socket_is_when_it_was_bound(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 1_700_000_000 * SECOND + 123)
    assert creation(path) == 1_700_000_000 * SECOND + 123


def test_creation_of_an_absent_socket_is_none(tmp_path: Path) -> None:
    assert creation(tmp_path / "kubelet.sock") is None


def test_creation_does_not_change_while_a_socket_is_used(
    tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        path.chmod(0o600)
        assert creation(path) == 5 * SECOND


def test_marker_takes_over_the_sockets_time(tmp_path: Path) -> None:
    marker = tmp_path / "registered"
    mark_registered(marker, 1_700_000_000 * SECOND + 123)
    assert marker.stat().st_mtime_ns == 1_700_000_000 * SECOND + 123
    assert marker.stat().st_mode & 0o777 == 0o600
    assert marker.read_bytes() == b""


def test_marker_of_an_earlier_registration_is_renewed(tmp_path: Path) -> None:
    marker = tmp_path / "registered"
    mark_registered(marker, 7 * SECOND)
    mark_registered(marker, 5 * SECOND)
    assert marker.stat().st_mtime_ns == 5 * SECOND


def test_marker_and_socket_are_neither_older_nor_newer(
    tmp_path: Path, listener: socket.socket
) -> None:
    path, marker = tmp_path / "kubelet.sock", tmp_path / "registered"
    listener.bind(str(path))
    created = creation(path)
    assert created is not None
    mark_registered(marker, created)
    assert creation(marker) == created


async def test_live_socket_is_found_at_once(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    assert await asyncio.wait_for(live_socket(path), PATIENCE) == 5 * SECOND


async def test_dead_socket_is_waited_out(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    with socket.socket(socket.AF_UNIX) as before:
        serve(before, path, 5 * SECOND)
    waiting = asyncio.ensure_future(live_socket(path))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    path.unlink()
    listener.bind(str(path))
    listener.listen()
    assert await asyncio.wait_for(waiting, PATIENCE) == path.stat().st_mtime_ns


async def test_socket_we_are_done_with_is_passed_over(
    tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    waiting = asyncio.ensure_future(live_socket(path, other_than=5 * SECOND))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as after:
        after.bind(str(path))
        after.listen()
        assert await asyncio.wait_for(waiting, PATIENCE) == path.stat().st_mtime_ns


async def test_folder_that_goes_away_ends_the_wait(tmp_path: Path) -> None:
    folder = tmp_path / "device-plugins"
    folder.mkdir()
    waiting = asyncio.ensure_future(live_socket(folder / "kubelet.sock"))
    await asyncio.sleep(0.05)
    folder.rmdir()
    with pytest.raises(Left) as caught:
        await asyncio.wait_for(waiting, PATIENCE)
    assert str(caught.value) == f"{folder} was removed or moved"


async def test_folder_that_is_not_there_counts_as_gone(tmp_path: Path) -> None:
    with pytest.raises(Left, match="absent was removed"):
        await live_socket(tmp_path / "absent" / "kubelet.sock")
