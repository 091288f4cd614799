"""How the pinning daemon waits for container runtimes, and what it does without one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import connected, is_ready, supervisor
from tests.testbed.host import Host
from tests.testbed.prelude import USED_UP_LIMITS
from tests.testbed.runtime import Runtime, cpus
from tests.testbed.wait import until

from .conftest import OWNER, StartRuntime


async def test_daemon_reports_that_it_waits_for_a_runtime(
    host: Host, start_runtime: StartRuntime
) -> None:
    async with supervisor(host, "pin").running() as daemon:
        run = await daemon.worker(is_ready)
        assert run.status == f"Waiting for a container runtime with NRI at {host.nri_socket}"
        runtime = await start_runtime()
        await runtime.until_connected()
        assert cpus(await runtime.create(runtime.run_pod("a"))) == "0-1,4-5"
        assert len(daemon.runs) == 1


async def test_containers_are_pinned_after_every_runtime_restart(
    host: Host, start_runtime: StartRuntime
) -> None:
    async with supervisor(host, "pin").running() as daemon:
        for number in range(3):
            runtime = await start_runtime()
            await runtime.until_connected()
            assert cpus(await runtime.create(runtime.run_pod(f"pod-{number}"))) == "0-1,4-5"
            await runtime.stop()
            await daemon.until(lambda run: run.status.startswith("Waiting"))
            between = await runtime.create(runtime.run_pod(f"between-{number}"), "owner", OWNER)
            assert cpus(between) == ""
        runtime = await start_runtime()
        await runtime.until_connected()
        assert {cpus(one) for one in runtime.containers.values() if one.name == "owner"} == {"2-3"}
        assert len(daemon.runs) == 1


async def test_runtime_is_found_after_a_socket_without_a_listener(
    host: Host, start_runtime: StartRuntime
) -> None:
    await (await start_runtime()).stop()
    assert host.nri_socket.is_socket()
    async with supervisor(host, "pin").running() as daemon:
        await daemon.worker(is_ready)
        await asyncio.sleep(4.5)  # the daemon retries for 4 s
        runtime = await start_runtime()
        await runtime.until_connected()


async def test_directory_in_place_of_the_runtimes_socket_is_reported(
    host: Host, start_runtime: StartRuntime
) -> None:
    host.nri_socket.mkdir(parents=True)
    reason = f"{host.nri_socket} is a directory, not a socket: remove it"
    async with supervisor(host, "pin").running() as daemon:
        await daemon.until(
            lambda run: run.status.startswith(f"Waiting for a container runtime: {reason}")
        )
        host.nri_socket.rmdir()
        await (await start_runtime()).until_connected()
        assert len(daemon.runs) == 1
    assert host.log.count(reason) == 1


async def test_recreated_socket_directory_is_found(
    host: Host, runtime: Runtime, connected: Supervisor, start_runtime: StartRuntime
) -> None:
    await runtime.stop()
    host.nri_socket.unlink()
    host.nri_socket.parent.rmdir()
    await connected.until(lambda run: run.status.startswith("Waiting"))
    second = await start_runtime()
    await second.until_connected()
    assert len(connected.runs) == 1


async def test_rejection_is_logged_and_the_next_runtime_is_tried(
    host: Host, start_runtime: StartRuntime
) -> None:
    refusing = await start_runtime(refuses=True)
    async with supervisor(host, "pin").running() as daemon:
        await until(lambda: "rejected the plugin: external plugins are disabled" in host.log)
        await refusing.stop()
        runtime = await start_runtime()
        await runtime.until_connected()
        assert len(daemon.runs) == 1


async def test_each_rejecting_runtime_is_tried_once(
    host: Host, start_runtime: StartRuntime
) -> None:
    first = await start_runtime(refuses=True)
    async with supervisor(host, "pin").running():
        await until(lambda: first.refused == 1)
        await first.stop()
        second = await start_runtime(refuses=True)
        await until(lambda: second.refused > 0)
        # A new event for the same socket. The daemon knows that this runtime rejected it.
        host.nri_socket.rename(host.nri_socket.with_name("aside"))
        host.nri_socket.with_name("aside").rename(host.nri_socket)
        await asyncio.sleep(1)  # the same runtime is retried after 5 s
        assert (first.refused, second.refused) == (1, 1)


async def test_directory_of_the_socket_is_awaited_part_by_part(host: Host) -> None:
    directory = host.directory / "no" / "such"
    options: list[str | Path] = ["--nri-socket", directory / "nri.sock"]
    async with Supervisor(host.command("pin", *options), host.directory).running() as daemon:
        await daemon.worker(is_ready)
        directory.parent.mkdir()
        await asyncio.sleep(0.1)
        directory.mkdir()
        runtime = Runtime(directory / "nri.sock", request_seconds=20)
        await runtime.start()
        await runtime.until_connected()
        await runtime.stop()
        assert len(daemon.runs) == 1


def test_exhausted_inotify_limits_are_a_one_line_error(host: Host) -> None:
    host.nri_socket.parent.mkdir()
    command = host.command("pin", prelude=USED_UP_LIMITS)
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("[Errno 24] Too many open files: see the ")
    assert "Traceback" not in result.stderr


def test_pinning_loads_no_grpc() -> None:
    loads = "import isolcpus_dp.nri.daemon, sys; print('grpc' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True)
    assert ended.stdout == "False\n"


async def test_daemon_loads_neither_grpc_nor_a_report(
    host: Host, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    async with connected(supervisor(host, "pin"), runtime):
        pass
    loaded = {line.rpartition("|")[2].strip() for line in host.log.splitlines()}
    assert "isolcpus_dp.nri.daemon" in loaded
    reports = {name for name in loaded if name.startswith("isolcpus_dp.report")}
    assert not loaded & {"grpc", "prometheus_client", "rich", "yaml"} | reports
