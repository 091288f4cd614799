"""The daemon's files in its runtime directory: the mark of a registration."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.host.sockets import Identity, identify
from isolcpus_dp.kubelet.paths import device_plugins, registration_socket
from isolcpus_dp.kubelet.runtime_directory import RuntimeDirectory

SECOND = 1_000_000_000


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as unbound:
        yield unbound


def serve(listener: socket.socket, path: Path, created: int) -> None:
    listener.bind(str(path))
    listener.listen()
    os.utime(path, ns=(created, created))


def test_kubelets_directory_and_socket() -> None:
    kubelet_dir = Path("/var/lib/kubelet")
    assert device_plugins(kubelet_dir) == Path("/var/lib/kubelet/device-plugins")
    assert registration_socket(kubelet_dir) == Path("/var/lib/kubelet/device-plugins/kubelet.sock")


def test_mark_has_the_sockets_time(tmp_path: Path) -> None:
    mark = tmp_path / "registered"
    RuntimeDirectory(tmp_path).mark_registered(Identity(1, 1_700_000_000 * SECOND + 123))
    assert mark.stat().st_mtime_ns == 1_700_000_000 * SECOND + 123
    assert mark.stat().st_mode & 0o777 == 0o600
    assert mark.read_bytes() == b""


def test_mark_of_an_earlier_registration_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "registered"
    RuntimeDirectory(tmp_path).mark_registered(Identity(1, 7 * SECOND))
    RuntimeDirectory(tmp_path).mark_registered(Identity(1, 5 * SECOND))
    assert mark.stat().st_mtime_ns == 5 * SECOND


def test_mark_is_neither_older_nor_newer_than_the_socket(
    tmp_path: Path, listener: socket.socket
) -> None:
    path, mark = tmp_path / "kubelet.sock", tmp_path / "registered"
    listener.bind(str(path))
    identity = identify(path)
    assert identity is not None
    RuntimeDirectory(tmp_path).mark_registered(identity)
    assert mark.stat().st_mtime_ns == identity.bound_ns


def test_files_that_cannot_be_removed_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = [tmp_path / name for name in ("registered", "isolcpus-dp.pid")]
    for file in files:
        file.mkdir()  # unlink(2) fails
    directory = RuntimeDirectory(tmp_path)
    directory.clear_mark()
    directory.clear_pidfile()
    assert caplog.messages == [f"could not remove {file}: Is a directory" for file in files]
