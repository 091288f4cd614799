"""A journal that takes no entries: no daemon waits for it, and the loss is reported later."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.service.journal import Sender
from isolcpus_dp.simulator.kubelet import Kubelet
from tests.integration.pin.conftest import StartRuntime, start_runtime
from tests.testbed.daemon import connected, first_devices, registered, supervisor, unit_environment
from tests.testbed.host import Host

__all__ = ["start_runtime"]  # a fixture

# The daemon's journal is the socket at this path.
OTHER_JOURNAL = """
import pathlib
from isolcpus_dp.service import journal
journal.Sender.__init__.__defaults__ = (pathlib.Path({!r}),)
"""


@pytest.fixture
def path(host: Host) -> Path:
    return host.directory / "journal"


@pytest.fixture
def journal(path: Path) -> Iterator[socket.socket]:
    """The journal's end of its socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener:
        listener.bind(str(path))
        yield listener


def fill(path: Path) -> None:
    """Sends datagrams until the socket's queue takes no more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
        while True:
            try:
                sender.sendto(b"MESSAGE=full\n", str(path))
            except BlockingIOError:
                return


def drain(journal: socket.socket) -> list[bytes]:
    entries = []
    while True:
        try:
            entries.append(journal.recv(1 << 20))
        except BlockingIOError:
            return entries


def test_entry_has_its_message_and_fields(journal: socket.socket, path: Path) -> None:
    Sender(path)("asked to stop", EVENT="stopped", PRIORITY="6", levelname="INFO", CODE_LINE=7)
    assert drain(journal) == [b"EVENT=stopped\nPRIORITY=6\nCODE_LINE=7\nMESSAGE=asked to stop\n"]


def test_lines_are_one_field_of_the_entry(journal: socket.socket, path: Path) -> None:
    Sender(path)("a\nb")
    assert drain(journal) == [b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"]


def test_message_that_is_too_long_for_a_datagram_is_cut(journal: socket.socket, path: Path) -> None:
    Sender(path)("x" * 1_000_000)
    assert drain(journal) == [b"MESSAGE=" + b"x" * 32768 + b"\n"]


def test_entries_that_a_full_journal_loses_are_counted(journal: socket.socket, path: Path) -> None:
    sender = Sender(path)
    fill(path)
    sender("first")
    sender("second")
    drain(journal)
    sender("third")
    sender("fourth")
    assert drain(journal) == [
        b"LOST=2\nMESSAGE=third (2 earlier entries were lost)\n",
        b"MESSAGE=fourth\n",
    ]


def test_absent_journal_is_no_error(path: Path, journal: socket.socket) -> None:
    sender = Sender(path)
    path.rename(path.with_name("aside"))
    sender("lost")
    path.with_name("aside").rename(path)
    sender("sent")
    assert drain(journal) == [b"LOST=1\nMESSAGE=sent (1 earlier entries were lost)\n"]


@pytest.mark.usefixtures("journal")
async def test_device_plugin_does_not_wait_for_a_full_journal(
    host: Host, kubelet: Kubelet, path: Path
) -> None:
    fill(path)
    daemon = supervisor(
        host, "serve", environment=unit_environment(host, "serve"),
        prelude=OTHER_JOURNAL.format(os.fspath(path)),
    )  # fmt: skip
    async with registered(daemon, kubelet):
        await first_devices(kubelet)
    assert host.log == ""


@pytest.mark.usefixtures("journal")
async def test_pinning_daemon_does_not_wait_for_a_full_journal(
    host: Host, start_runtime: StartRuntime, path: Path
) -> None:
    fill(path)
    daemon = supervisor(
        host, "pin", environment=unit_environment(host, "pin"),
        prelude=OTHER_JOURNAL.format(os.fspath(path)),
    )  # fmt: skip
    async with connected(daemon, await start_runtime()):
        pass
    assert host.log == ""
