"""What a local user without root can reach of the daemons, and of a command that root runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.machine import regular
from tests.testbed.daemon import connected, registered, supervisor
from tests.testbed.host import Host, made_up_host
from tests.testbed.process import open_files
from tests.testbed.runtime import Runtime

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

CONNECT = """
import os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print("connected")
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def open_umask() -> Iterator[None]:
    """The daemons are started with a umask that takes away nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def metrics(host: Host) -> Path:
    """The socket on which the daemon serves its metrics."""
    return host.directory / "metrics.sock"


@pytest.fixture
def configuration(metrics: Path) -> str:
    return f"[Metrics]\nListen={metrics}\n"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def connects_as_nobody(path: Path) -> str:
    """What a process of another user gets when it connects to a socket."""
    ended = subprocess.run(
        [sys.executable, "-c", CONNECT, str(path)], capture_output=True, text=True, timeout=60
    )
    assert ended.stderr == ""
    return ended.stdout.strip()


@pytest.mark.usefixtures("open_umask")
async def test_files_of_the_device_plugin_are_roots_whatever_the_umask(
    host: Host, kubelet: Kubelet, configuration: str, metrics: Path
) -> None:
    async with registered(supervisor(host, "serve", configuration), kubelet) as daemon:
        found = {path.name: mode(path) for path in (host.endpoint, metrics)}
        found |= {path.name: mode(path) for path in daemon.runtime_dir.iterdir()}
        own = host.endpoint.parent / ".isolcpus-dp"
        assert mode(own) == 0o700
    assert found == {
        "windriver.com-isolcpus.sock": 0o600,
        "metrics.sock": 0o600,
        "registered": 0o600,
        "isolcpus-dp.pid": 0o600,
        "configuration": 0o600,
    }


@root_only
@pytest.mark.usefixtures("open_umask")
async def test_another_user_cannot_call_plugin_or_metrics(
    host: Host, kubelet: Kubelet, configuration: str, metrics: Path
) -> None:
    # As if all directories on the way were open.
    for directory in (host.directory, host.kubelet_dir, host.device_plugins):
        directory.chmod(0o777)
    async with registered(supervisor(host, "serve", configuration), kubelet):
        for path in (host.endpoint, metrics):
            assert connects_as_nobody(path) == "Permission denied"
        with socket.socket(socket.AF_UNIX) as roots:
            roots.connect(str(host.endpoint))


def listening() -> set[str]:
    """The inode numbers of the unix sockets that listen, from /proc/net/unix."""
    fields = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return {one[6] for one in fields if int(one[3], 16) & 0x10000}  # __SO_ACCEPTCON


async def test_pinning_daemon_listens_on_no_socket() -> None:
    with made_up_host(regular(2, 4, 1), {2, 3, 6, 7}) as host:
        runtime = Runtime(host.nri_socket, request_seconds=20)
        await runtime.start()
        async with connected(supervisor(host, "pin"), runtime) as daemon:
            assert daemon.current.pid
            names = open_files(daemon.current.pid)
            held = {name[len("socket:[") : -1] for name in names if name.startswith("socket:[")}
            assert held
            assert not held & listening()
        await runtime.stop()


PLANTED = """
import pathlib
pathlib.Path({mark!r}).touch()
raise ImportError("planted")
"""


@pytest.mark.parametrize("subcommand", ["status", "check", "plan", "map"])
def test_command_runs_no_code_of_the_directory_that_it_is_run_in(
    host: Host, tmp_path: Path, subcommand: str
) -> None:
    program = Path(sys.executable).with_name("isolcpus-dp")
    if not program.exists():
        pytest.skip("the program is not installed beside this Python")
    mark = tmp_path / "ran"
    for name in ("grpc", "yaml", "rich", "json", "sdnotify", "isolcpus_dp", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(PLANTED.format(mark=str(mark)))
    for name in ("systemctl", "containerd", "crio"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (tmp_path / name).chmod(0o755)
    options = host.command(subcommand)[4:]
    if subcommand == "plan":  # which reads no kubelet's directory
        options = options[:2]
    ended = subprocess.run(
        [program, subcommand, *options],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:.:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in ended.stderr
    assert ended.stdout
    assert not mark.exists()
