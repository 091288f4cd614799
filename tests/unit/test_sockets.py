"""Sockets of other processes: identity, listener, and waiting for one."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp.host import inotify
from isolcpus_dp.host.sockets import Gone, Identity, SocketWatch, identify, peer

SECOND = 1_000_000_000
PATIENCE = 10  # seconds until a waiting test fails


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as unbound:
        yield unbound


def serve(listener: socket.socket, path: Path, created: int) -> None:
    listener.bind(str(path))
    listener.listen()
    os.utime(path, ns=(created, created))


def test_identity_contains_the_time_of_bind(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 1_700_000_000 * SECOND + 123)
    assert identify(path) == Identity(path.stat().st_ino, 1_700_000_000 * SECOND + 123)


def test_absent_socket_has_no_identity(tmp_path: Path) -> None:
    assert identify(tmp_path / "kubelet.sock") is None
    (tmp_path / "file").touch()
    assert identify(tmp_path / "file" / "kubelet.sock") is None


def test_identity_does_not_change_with_use_or_mode(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    before = identify(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        path.chmod(0o600)
        assert identify(path) == before


def test_later_socket_has_another_identity(tmp_path: Path, listener: socket.socket) -> None:
    """Also with the same inode number, as on ext4."""
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    before = identify(path)
    os.utime(path, ns=(6 * SECOND, 6 * SECOND))
    assert identify(path) != before


async def test_renamed_socket_is_not_replaced(tmp_path: Path, listener: socket.socket) -> None:
    path, aside = tmp_path / "nri.sock", tmp_path / "aside"
    serve(listener, path, 5 * SECOND)
    with SocketWatch(path) as watch, socket.socket(socket.AF_UNIX) as successor:
        waiting = asyncio.create_task(watch.replaced(identify(path), PATIENCE))
        await asyncio.sleep(0)
        path.rename(aside)
        await asyncio.wait({waiting}, timeout=0.1)
        assert not waiting.done()
        aside.rename(path)
        await asyncio.wait({waiting}, timeout=0.1)
        assert not waiting.done()
        path.unlink()
        serve(successor, path, 6 * SECOND)
        await asyncio.wait_for(waiting, PATIENCE / 2)


async def test_directory_that_was_replaced_is_gone(tmp_path: Path) -> None:
    """Also if the new directory has the same inode number, as on ext4."""
    parent = tmp_path / "device-plugins"
    parent.mkdir()
    with SocketWatch(parent / "kubelet.sock") as watch:
        live = asyncio.create_task(watch.listener())
        await asyncio.sleep(0)
        parent.rmdir()
        parent.mkdir()
        with pytest.raises(Gone):
            await asyncio.wait_for(live, PATIENCE)


async def test_existing_directory_is_not_gone_after_lost_events(
    tmp_path: Path, listener: socket.socket
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    path = tmp_path / "device-plugins" / "kubelet.sock"
    path.parent.mkdir()
    with SocketWatch(path) as watch:
        live = asyncio.create_task(watch.listener())
        await asyncio.sleep(0)
        for number in range(limit + 1):
            (path.parent / f"{number % 2}").touch()
            (path.parent / f"{number % 2}").unlink()
        await asyncio.sleep(0.1)
        assert not live.done()
        serve(listener, path, 5 * SECOND)
        assert await asyncio.wait_for(live, PATIENCE) == identify(path)


async def test_live_socket_is_found_at_once(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    with SocketWatch(path) as watch:
        assert await asyncio.wait_for(watch.listener(), PATIENCE) == identify(path)


async def test_dead_socket_is_ignored(tmp_path: Path, listener: socket.socket) -> None:
    path = tmp_path / "kubelet.sock"
    with socket.socket(socket.AF_UNIX) as before:
        serve(before, path, 5 * SECOND)
    with SocketWatch(path) as watch:
        waiting = asyncio.ensure_future(watch.listener())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        path.unlink()
        listener.bind(str(path))
        listener.listen()
        assert await asyncio.wait_for(waiting, PATIENCE) == identify(path)


async def test_new_socket_is_returned_before_its_owner_listens(
    tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "kubelet.sock"
    with SocketWatch(path) as watch:
        waiting = asyncio.ensure_future(watch.listener())
        await asyncio.sleep(0.05)
        listener.bind(str(path))
        assert await asyncio.wait_for(waiting, PATIENCE) == identify(path)


async def test_failed_socket_is_returned_again_after_growing_delays(
    tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    times, failed = [time.monotonic()], identify(path)
    with SocketWatch(path) as watch:
        for _ in range(8):
            assert await asyncio.wait_for(watch.listener(failed), PATIENCE) == failed
            times.append(time.monotonic())
    assert times[-1] - times[0] >= 0.255  # 1 + 2 + 4 … + 128 ms
    assert times[-1] - times[-2] >= 0.128


async def test_successor_of_a_failed_socket_is_returned_at_once(
    tmp_path: Path, listener: socket.socket
) -> None:
    path = tmp_path / "kubelet.sock"
    serve(listener, path, 5 * SECOND)
    with SocketWatch(path) as watch, socket.socket(socket.AF_UNIX) as after:
        failed = identify(path)
        for _ in range(12):  # the next delay is 4 s
            await asyncio.wait_for(watch.listener(failed), PATIENCE)
        waiting = asyncio.ensure_future(watch.listener(failed))
        await asyncio.sleep(0.05)
        path.unlink()
        after.bind(str(path))
        began = time.monotonic()
        assert await asyncio.wait_for(waiting, PATIENCE) == identify(path)
        assert time.monotonic() - began < 3


async def test_removed_directory_ends_the_wait(tmp_path: Path) -> None:
    parent = tmp_path / "device-plugins"
    parent.mkdir()
    with SocketWatch(parent / "kubelet.sock") as watch:
        waiting = asyncio.ensure_future(watch.listener())
        await asyncio.sleep(0.05)
        parent.rmdir()
        with pytest.raises(Gone) as caught:
            await asyncio.wait_for(waiting, PATIENCE)
    assert str(caught.value) == f"{parent} was removed, moved or replaced"


async def test_directory_removed_during_setup_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = tmp_path / "device-plugins"
    parent.mkdir()
    add = inotify.Watch.add

    def add_and_remove(*arguments: Any) -> None:
        add(*arguments)
        if parent.exists():
            parent.rmdir()

    monkeypatch.setattr(inotify.Watch, "add", add_and_remove)
    with pytest.raises(Gone), SocketWatch(parent / "kubelet.sock") as watch:
        await asyncio.wait_for(watch.listener(), PATIENCE)


async def test_absent_directory_counts_as_gone(tmp_path: Path) -> None:
    watch = SocketWatch(tmp_path / "absent" / "kubelet.sock")
    with pytest.raises(Gone, match="absent was removed"), watch:
        pass


def test_live_socket_has_its_process_as_peer(tmp_path: Path) -> None:
    path = tmp_path / "live.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        own_name = Path("/proc/self/comm").read_text().strip()
        assert peer(path) == f"process {os.getpid()} ({own_name})"


def test_busy_socket_has_another_process_as_peer(tmp_path: Path) -> None:
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        assert peer(path) == "another process"


def test_dead_socket_has_no_peer(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
    assert path.is_socket()
    assert peer(path) is None


def test_absent_socket_has_no_peer(tmp_path: Path) -> None:
    assert peer(tmp_path / "absent.sock") is None


def test_ordinary_file_has_no_peer(tmp_path: Path) -> None:
    path = tmp_path / "file.sock"
    path.touch()
    assert peer(path) is None
