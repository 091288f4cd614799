"""The address of the metrics, and errors when the daemon cannot listen on it."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp.kubelet import exporter
from isolcpus_dp.kubelet.metrics import Metrics
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from tests.testbed.daemon import has_devices, supervisor
from tests.testbed.daemon import registered as registered_with
from tests.testbed.host import RESOURCE, Host


async def test_plugin_serves_without_metrics_on_a_used_address(
    host: Host, kubelet: Kubelet
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon = supervisor(host, "serve", f"[Metrics]\nListen=127.0.0.1:{port}\n")
        async with registered_with(daemon, kubelet):
            await has_devices(kubelet)
            assert len(daemon.workers) == 1
    assert host.log.splitlines()[0] == (
        "[Metrics] Listen=: cannot listen on it: Address already in use (while attempting to bind"
        f" on address ('127.0.0.1', {port})): use a free address of this host;"
        " the plugin runs without metrics"
    )


async def test_directory_in_place_of_the_metrics_socket_is_named(
    host: Host, kubelet: Kubelet
) -> None:
    path = host.directory / "metrics.sock"
    path.mkdir()
    daemon = supervisor(host, "serve", f"[Metrics]\nListen={path}\n")
    async with registered_with(daemon, kubelet):
        await has_devices(kubelet)
    assert host.log.splitlines()[0] == (
        f"[Metrics] Listen=: cannot listen on it: {path} is a directory, not a socket: remove it"
        f" (rmdir {path}); the plugin runs without metrics"
    )


async def test_plugin_serves_without_prometheus_client(
    host: Host, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Found before the installed module.
    absent = host.directory / "absent" / "prometheus_client.py"
    absent.parent.mkdir()
    absent.write_text("raise ModuleNotFoundError(name='prometheus_client')\n")
    monkeypatch.setenv("PYTHONPATH", str(absent.parent))
    daemon = supervisor(host, "serve", "[Metrics]\nListen=127.0.0.1:1\n")
    async with registered_with(daemon, kubelet):
        await has_devices(kubelet)
        await kubelet.admit(Pod("owner", {RESOURCE: 2}))
        assert len(daemon.workers) == 1
    assert host.log.splitlines()[0] == (
        "[Metrics] Listen= needs prometheus-client: install python3-prometheus-client"
        " (python3-prometheus_client on EL and Fedora); the plugin runs without metrics"
    )


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics([RESOURCE], list, lambda: tmp_path)


async def test_address_without_a_network_names_the_drop_in_it_needs(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*arguments: Any, **more: Any) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refused)
    async with exporter.serving(metrics, ("127.0.0.1", 9497)):
        monkeypatch.undo()
    assert caplog.messages == [
        "[Metrics] Listen=: cannot listen on it: Address family not supported by protocol:"
        " the unit's sandbox has no network unless a drop-in (systemctl edit isolcpus-dp) sets,"
        " in [Service], PrivateNetwork=no and"
        " RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6 and"
        " IPAddressAllow=localhost; see isolcpus-dp.conf(5);"
        " the plugin runs without metrics"
    ]
    assert caplog.records[0].levelno == logging.ERROR


@pytest.mark.parametrize(
    ("listen", "reason"),
    [
        (
            Path("/nowhere/metrics.sock"),
            "No such file or directory: the unit's sandbox allows a socket in /run/isolcpus-dp",
        ),
        (
            Path(f"/{'long' * 30}"),
            "AF_UNIX path too long: the unit's sandbox allows a socket in /run/isolcpus-dp",
        ),
    ],
    ids=["directory", "long"],
)
async def test_unusable_address_is_a_one_line_error(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, listen: Any, reason: str
) -> None:
    async with exporter.serving(metrics, listen):
        pass
    assert caplog.messages == [
        f"[Metrics] Listen=: cannot listen on it: {reason}; the plugin runs without metrics"
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_metrics_are_served_on_an_address(
    metrics: Metrics, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, 0), family=family) as probe:
            port = probe.getsockname()[1]
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    async with exporter.serving(metrics, (host, port)):
        assert caplog.messages == []
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.0 200 OK\r\n")
        writer.close()


async def test_regular_file_at_the_socket_path_is_kept(
    metrics: Metrics, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    async with exporter.serving(metrics, file):
        pass
    assert file.read_text() == "precious"
    assert "Address already in use" in caplog.text
