"""What keeps a daemon from a socket or a directory of another program, and what it says then."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.host.directories import Hidden, require_visible
from isolcpus_dp.host.sockets import SocketWatch, obstacle

PATIENCE = 10  # seconds until a waiting test fails


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a socket that does not exist yet."""
    return tmp_path / "kubelet.sock"


def test_absent_or_dead_socket_is_no_obstacle(path: Path) -> None:
    assert obstacle(path) == ""
    assert obstacle(path / "in/no/directory") == ""
    with socket.socket(socket.AF_UNIX) as unused:
        unused.bind(str(path))
        assert obstacle(path) == ""
    assert obstacle(path) == ""


def test_directory_in_place_of_a_socket_is_an_obstacle(path: Path) -> None:
    path.mkdir()
    assert obstacle(path) == f"{path} is a directory, not a socket: remove it (rmdir {path})"


def test_file_in_place_of_a_socket_is_an_obstacle(path: Path) -> None:
    path.touch()
    assert obstacle(path) == f"{path} is a file, not a socket: remove it, or use another path"


def test_links_to_a_socket_are_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "target")
    assert obstacle(path) == ""
    (tmp_path / "target").mkdir()
    assert obstacle(path) == f"{path} is a directory, not a socket: remove it (rmdir {path})"


def test_links_in_a_loop_are_an_obstacle(path: Path) -> None:
    path.symlink_to(path)
    assert obstacle(path) == f"cannot connect to {path}: Too many levels of symbolic links"


def test_too_long_path_is_an_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 107)
    assert obstacle(path) == f"{path} is longer than the 107 bytes that a socket's path may have"


async def reasons(path: Path, count: int) -> list[str]:
    """The obstacles that are reported while a daemon waits for a socket that is never served."""
    reported: list[str] = []
    enough = asyncio.Event()

    def report(reason: str) -> None:
        reported.append(reason)
        if len(reported) == count:
            enough.set()

    with SocketWatch(path, report) as watch:
        waiting = asyncio.create_task(watch.listener())
        await asyncio.wait_for(enough.wait(), PATIENCE)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    return reported


async def test_obstacle_is_reported_while_waiting(path: Path) -> None:
    path.mkdir()
    assert await reasons(path, 1) == [
        f"{path} is a directory, not a socket: remove it (rmdir {path})"
    ]


async def test_socket_of_another_type_is_reported(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        assert await reasons(path, 1) == [
            f"cannot connect to {path}: Protocol wrong type for socket"
        ]


async def test_created_directory_is_not_taken_for_a_socket(path: Path) -> None:
    reported = asyncio.Event()
    with SocketWatch(path, lambda _: reported.set()) as watch:
        waiting = asyncio.create_task(watch.listener())
        await asyncio.sleep(0)
        path.mkdir()
        await asyncio.wait_for(reported.wait(), PATIENCE)
        assert not waiting.done()
        path.rmdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            await asyncio.wait_for(waiting, PATIENCE)


async def test_same_obstacle_is_reported_once(path: Path) -> None:
    path.mkdir()
    reported: list[str] = []
    with SocketWatch(path, reported.append) as watch:
        for _ in range(5):
            await asyncio.wait_for(watch.next_attempt(), PATIENCE)
    assert reported == [f"{path} is a directory, not a socket: remove it (rmdir {path})"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home directory as systemd hides it: empty, and without permissions."""
    directory = tmp_path / "home"
    directory.mkdir(mode=0)
    yield directory
    directory.chmod(0o700)


def test_link_into_a_hidden_home_is_named(tmp_path: Path, home: Path) -> None:
    link = tmp_path / "lib" / "kubelet"
    link.parent.mkdir()
    link.symlink_to(home / "data" / "kubelet")
    with pytest.raises(Hidden) as caught:
        require_visible(link / "device-plugins", [tmp_path / "other", home])
    assert str(caught.value) == (
        f"{link} is a link to {home}/data/kubelet, which ProtectHome= of the unit hides: set"
        " ProtectHome=no in [Service] of a drop-in (systemctl edit isolcpus-dp) and restart it, or"
        f" move the directory out of {home}"
    )


def test_last_of_several_links_is_named(tmp_path: Path, home: Path) -> None:
    (tmp_path / "kubelet").symlink_to("second")
    (tmp_path / "second").symlink_to(home / "kubelet")
    with pytest.raises(Hidden, match=f"^{tmp_path}/second is a link to {home}/kubelet, which"):
        require_visible(tmp_path / "kubelet", [home])


def test_directory_below_a_hidden_home_is_named(home: Path) -> None:
    with pytest.raises(Hidden, match=f"^{home}/kubelet is in {home}, which"):
        require_visible(home / "kubelet", [home])


def test_home_itself_may_be_a_link(tmp_path: Path, home: Path) -> None:
    (tmp_path / "link-to-home").symlink_to(home)
    (tmp_path / "kubelet").symlink_to(home / "kubelet")
    with pytest.raises(Hidden, match=f"^{tmp_path}/kubelet is a link to {home}/kubelet, which"):
        require_visible(tmp_path / "kubelet", [tmp_path / "link-to-home"])


def test_home_that_is_not_hidden_may_have_the_directory(tmp_path: Path, home: Path) -> None:
    home.chmod(0o755)
    (tmp_path / "kubelet").symlink_to(home / "kubelet")
    require_visible(tmp_path / "kubelet", [home])
    (home / "kubelet" / "device-plugins").mkdir(parents=True)
    require_visible(tmp_path / "kubelet" / "device-plugins", [home])


def test_other_directories_are_visible(tmp_path: Path, home: Path) -> None:
    require_visible(tmp_path / "absent" / "kubelet", [home])
    require_visible(tmp_path / "homestead", [home])
