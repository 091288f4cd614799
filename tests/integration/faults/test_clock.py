"""Clock jumps: no delay depends on the clock, and the mark of a registration is compared only."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.testbed.daemon import has_devices, is_registered, registered, supervisor
from tests.testbed.host import Host
from tests.testbed.wait import until

HOUR = 3600 * 1_000_000_000
UNIT = Path(__file__).parents[3] / "systemd/isolcpus-dp-kubelet.service"

# The clock of the daemon differs by what the file says, in nanoseconds. That of gRPC does
# not: it converts a deadline to the monotonic clock when a call begins.
OTHER_CLOCK = """
import pathlib, time
offset, time_ns = pathlib.Path({offset!r}), time.time_ns
time.time_ns = lambda: time_ns() + int(offset.read_text())
"""

both_directions = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])


@both_directions
async def test_daemon_registers_after_a_clock_jump(
    host: Host, kubelet: Kubelet, start_kubelet: StartKubelet, jump: int
) -> None:
    offset = host.directory / "offset"
    offset.write_text("0")
    prelude = OTHER_CLOCK.format(offset=os.fspath(offset))
    async with registered(supervisor(host, "serve", prelude=prelude), kubelet) as daemon:
        # In one step: the daemon may be reading the file.
        other = host.directory / "other"
        other.write_text(str(jump))
        other.rename(offset)
        await kubelet.stop()
        await has_devices(await start_kubelet())
        await until(lambda: host.log.count("registered windriver.com/isolcpus: ") == 2)
        assert len(daemon.runs) == 1
    last = re.findall(r", (-?\d+) ms after its socket was created", host.log)[-1]
    assert (last == "0") if jump < 0 else int(last) > 3_600_000


def restarts_the_daemon(host: Host, daemon: Supervisor) -> bool:
    """Whether isolcpus-dp-kubelet.service would restart the daemon, by the mark and the socket."""
    [line] = re.findall(r"^ExecCondition=/bin/sh -c '(.*)'$", UNIT.read_text(), re.MULTILINE)
    line = line.replace("$$", "$").replace("sleep 0.1", ":")
    line = line.replace("/var/lib/kubelet/device-plugins", os.fspath(host.device_plugins))
    line = line.replace("/run/isolcpus-dp/", f"{daemon.runtime_dir}/")
    status = subprocess.run(["/bin/sh", "-c", line], check=False).returncode
    assert status in (0, 1)
    return status == 0


@both_directions
async def test_mark_counts_for_one_socket_whatever_the_clock_says(
    host: Host, registered: Supervisor, jump: int
) -> None:
    """The socket is created again after a jump, while the kubelet's connection stays open."""
    first = await registered.worker(is_registered)
    assert not restarts_the_daemon(host, registered)
    bound = host.kubelet_socket.stat().st_mtime_ns
    again = host.kubelet_socket.with_name("again")
    os.link(host.kubelet_socket, again)
    os.utime(again, ns=(bound + jump, bound + jump))
    # The mark is now of another time than the socket; the worker has not seen the new file yet.
    assert restarts_the_daemon(host, registered)
    host.kubelet_socket.unlink()
    again.rename(host.kubelet_socket)
    await registered.worker(is_registered, other_than=first)
    mark = registered.runtime_dir / "registered"
    assert mark.stat().st_mtime_ns == bound + jump
    assert not restarts_the_daemon(host, registered)
    assert len(registered.runs) == 1
