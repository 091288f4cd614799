"""Messages to systemd, with and without sdnotify, which EL 10 does not have."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.service.notify import Systemd

HAS_SDNOTIFY = importlib.util.find_spec("sdnotify") is not None


@pytest.fixture(
    params=[
        pytest.param(
            "sdnotify", marks=pytest.mark.skipif(not HAS_SDNOTIFY, reason="not packaged here")
        ),
        "systemd-python",
    ]
)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two libraries that can send; without sdnotify, importing it fails."""
    if request.param != "sdnotify":
        monkeypatch.setitem(sys.modules, "sdnotify", None)
    else:
        monkeypatch.setitem(sys.modules, "systemd.daemon", None)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket on which systemd receives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


@pytest.mark.usefixtures("library")
def test_messages_reach_systemd(systemd: socket.socket) -> None:
    sender = Systemd()
    for state in ("READY=1\nSTATUS=Waiting", "STOPPING=1"):
        sender.notify(state)
    assert [systemd.recv(1024), systemd.recv(1024)] == [b"READY=1\nSTATUS=Waiting", b"STOPPING=1"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("name", "received"),
    [("é", b"\xc3\xa9"), ("日本", b"\xe6\x97\xa5\xe6\x9c\xac"), ("\udcff", b"?")],
)
def test_message_is_utf_8_whatever_it_names(
    systemd: socket.socket, name: str, received: bytes
) -> None:
    Systemd().notify(f"READY=1\nSTATUS=Waiting for {name}")
    assert systemd.recv(1024) == b"READY=1\nSTATUS=Waiting for " + received


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("address", [None, "/absent/notify"])
def test_unreachable_systemd_is_ignored(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    Systemd().notify("READY=1")
