"""A configuration that changes while the pinning daemon runs."""

from __future__ import annotations

import os
import signal

import pytest

from isolcpus_dp import config
from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import is_ready, supervisor
from tests.testbed.host import Host
from tests.testbed.prelude import Pause
from tests.testbed.runtime import Runtime, cpus
from tests.testbed.wait import until

from .conftest import OWNER

DPDK = "[Pool dpdk]\nResourceName=example.com/dpdk\nCPUs=6-7\n"
DPDK_OWNER = {"example.com/dpdk": "6-7"}

# The process pauses after it has read its configuration, before its event loop runs.
START_LATER = """
from isolcpus_dp.service import process
run = process.run
def run_later(live):
    pause()
    run(live)
process.run = run_later
"""


async def reload(host: Host, daemon: Supervisor, configuration: str) -> None:
    """Changes the file, and waits until the daemon has said that its reload has ended."""
    host.configure(configuration)
    [worker] = daemon.workers
    before = worker.ready
    os.kill(worker.pid, signal.SIGHUP)
    await daemon.until(lambda run: worker.ready != before)


def published(host: Host) -> str:
    return (host.directory / "run" / "configuration").read_text()


def fingerprint(host: Host) -> str:
    """The fingerprint of the file, with the line's end."""
    return f"{config.fingerprint(config.load(host.directory / 'isolcpus-dp.conf', 7))}\n"


async def test_new_pool_is_applied_to_existing_containers(
    host: Host, runtime: Runtime, pod: api.PodSandbox, connected: Supervisor
) -> None:
    early = await runtime.create(pod, "early", DPDK_OWNER)
    assert cpus(early) == "0-1,4-5"
    await reload(host, connected, DPDK)
    await until(lambda: cpus(early) == "6-7")
    await runtime.until_connected()
    assert cpus(await runtime.create(pod, "late", DPDK_OWNER)) == "6-7"
    assert "read the configuration again: updating all containers" in host.log
    assert len(connected.runs) == 1


async def test_wrong_configuration_changes_nothing(
    host: Host, runtime: Runtime, pod: api.PodSandbox, connected: Supervisor
) -> None:
    before = published(host)
    await reload(host, connected, "[Pinning]\nCPUQuota=none\n")
    assert (
        f"{host.directory}/isolcpus-dp.conf: [Pinning] CPUQuota=none: unknown value; use unlimited"
        " or keep; the earlier configuration stays in force"
    ) in host.log
    assert published(host) == before
    assert cpus(await runtime.create(pod, "owner", OWNER)) == "2-3"
    assert (len(runtime.registered), len(connected.runs)) == (1, 1)


async def test_configuration_is_applied_when_it_is_right_again(
    host: Host, runtime: Runtime, pod: api.PodSandbox, connected: Supervisor
) -> None:
    await reload(host, connected, "[Pool dpdk]\n")
    await reload(host, connected, DPDK)
    await until(lambda: runtime.synchronized == 2 and runtime.connected)
    assert cpus(await runtime.create(pod, "owner", DPDK_OWNER)) == "6-7"


@pytest.mark.parametrize("configuration", ["[Pinning]\nKeepOthersOff=no\n"])
async def test_connection_stays_if_nothing_changes_for_containers(
    host: Host, configuration: str, runtime: Runtime, pod: api.PodSandbox, connected: Supervisor
) -> None:
    before = published(host)
    await reload(host, connected, f"# a comment\n{configuration}")
    assert published(host) == before
    await reload(host, connected, f"{configuration}[Plugin]\nDeviceNodes=auto\n")
    assert host.log.count("read the configuration again: nothing changes for containers") == 2
    assert published(host) == fingerprint(host) != before
    assert cpus(await runtime.create(pod, "owner", OWNER)) == "2-3"
    assert len(runtime.registered) == 1


async def test_fingerprint_is_published_before_the_daemon_is_ready(host: Host) -> None:
    async with supervisor(host, "pin", DPDK).running() as daemon:
        await daemon.worker(is_ready)
        assert published(host) == fingerprint(host)
        await reload(host, daemon, "")
        assert published(host) == fingerprint(host)


async def test_reload_while_the_daemon_starts_is_not_lost(host: Host) -> None:
    pause = Pause(host.directory)
    async with supervisor(host, "pin", prelude=pause.prelude + START_LATER).running() as daemon:
        await pause.reached()
        host.configure(DPDK)
        assert daemon.current.pid
        os.kill(daemon.current.pid, signal.SIGHUP)
        pause.end()
        await until(lambda: "read the configuration again" in host.log)
        assert published(host) == fingerprint(host)
        assert len(daemon.runs) == 1


async def test_daemon_runs_without_a_writable_runtime_directory(host: Host) -> None:
    daemon = supervisor(host, "pin")
    async with daemon.running():
        await daemon.worker(is_ready)
        (host.directory / "run" / "configuration").unlink()
        # A directory in its place cannot be replaced by a file.
        (host.directory / "run" / "configuration").mkdir()
        await reload(host, daemon, DPDK)
        assert f"could not write {host.directory}/run/configuration: " in host.log
        assert len(daemon.runs) == 1
