"""Which unix sockets have a listener, from the kernel."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from isolcpus_dp.host import sock_diag


@pytest.fixture(autouse=True)
def supported(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(tmp_path / "probe.sock"))
            sock_diag.listens(tmp_path / "probe.sock")
    except OSError as error:
        pytest.skip(f"this kernel has no unix_diag: {error}")


def test_socket_with_a_listener_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        assert not sock_diag.listens(path)
        one.listen()
        assert sock_diag.listens(path)
        (tmp_path / "link").symlink_to(path)
        assert sock_diag.listens(tmp_path / "link")
    assert not sock_diag.listens(path)


def test_socket_among_many_is_seen(tmp_path: Path) -> None:
    many = [socket.socket(socket.AF_UNIX) for _ in range(300)]
    for number, one in enumerate(many):
        one.bind(str(tmp_path / str(number)))
        one.listen()
    assert all(sock_diag.listens(tmp_path / str(number)) for number in (0, 150, 299))
    for one in many:
        one.close()


def test_name_of_another_socket_is_no_listener(tmp_path: Path) -> None:
    """The socket at the path is dead; an abstract one has the same name, and a forged line."""
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0x\n00: 2 0 00010000 1 1 7 {str(path)[-60:]}")
        abstract.listen()
        assert not sock_diag.listens(path)


def test_socket_that_was_replaced_is_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(path))
        one.listen()
        path.rename(tmp_path / "moved.sock")
        other.bind(str(path))
        assert not sock_diag.listens(path)
        assert sock_diag.listens(tmp_path / "moved.sock")


@pytest.mark.parametrize("name", ["absent.sock", "file/a.sock"])
def test_absent_socket_has_no_listener(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    assert not sock_diag.listens(tmp_path / name)
