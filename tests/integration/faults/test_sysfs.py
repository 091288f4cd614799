"""Files of sysfs that vanish or cannot be read between two reads, and lost uevents."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isolcpus_dp.host import hotplug, machine
from isolcpus_dp.host.hotplug import MachineWatch
from isolcpus_dp.host.machine import Machine, MachineError
from isolcpus_dp.simulator.machine import MadeUpMachine, regular
from tests.integration.pin.conftest import StartRuntime, start_runtime
from tests.testbed.daemon import plain_environment, supervisor
from tests.testbed.host import Host

__all__ = ["start_runtime"]  # a fixture

PATIENCE = 20  # seconds until a waiting test fails


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUpMachine:
    """CPUs 0-3, of which 2-3 are isolated."""
    return MadeUpMachine(tmp_path / "sys", regular(1, 4, 1), {2, 3})


class Seen:
    """What a MachineWatch reports."""

    def __init__(self) -> None:
        self.machines: list[Machine] = []
        self.errors: list[str] = []
        self.changed, self.failed = asyncio.Event(), asyncio.Event()

    def change(self, present: Machine) -> None:
        self.machines.append(present)
        self.changed.set()

    def error(self, error: MachineError) -> None:
        self.errors.append(str(error))
        self.failed.set()


class Disk:
    """Reads files as the kernel would, unless they fail."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}  # by the end of a path: the error
        self.reads = 0  # that failed
        self.failed_often = asyncio.Event()
        self._open = os.open

    def open(self, path: str | os.PathLike[str], flags: int, **more: int) -> int:
        for end, number in self.failing.items():
            if os.fspath(path).endswith(end):
                self.reads += 1
                if self.reads >= 6:
                    self.failed_often.set()
                raise OSError(number, os.strerror(number), os.fspath(path))
        return self._open(path, flags, **more)


@pytest.fixture
async def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """That of the files which are read after this; created in the event loop."""
    disk = Disk()
    monkeypatch.setattr("isolcpus_dp.host.sysfs.os.open", disk.open)
    monkeypatch.setattr(hotplug, "_FIRST_DELAY", 0.001)
    monkeypatch.setattr(hotplug, "_LONGEST_DELAY", 0.004)
    return disk


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EIO, "Input/output error"),
        (errno.EACCES, "Permission denied"),
        (errno.EMFILE, "Too many open files"),
    ],
)
async def test_unreadable_machine_is_read_again_until_it_can_be_read(
    made_up: MadeUpMachine, disk: Disk, number: int, reason: str
) -> None:
    seen, before = Seen(), machine.read(made_up.root)
    with MachineWatch(made_up.root, before, seen.change, seen.error) as watch:
        disk.failing["/cpu1/topology/core_id"] = number
        made_up.set_offline(3)
        await asyncio.wait_for(disk.failed_often.wait(), PATIENCE)
        assert watch.machine == before
        assert seen.machines == []
        # No event says that it can be read again.
        disk.failing.clear()
        await asyncio.wait_for(seen.changed.wait(), PATIENCE)
        assert seen.machines[0].online == {0, 1, 2}
    path = made_up.directory / "cpu1/topology/core_id"
    assert seen.errors == [f"cannot read {path}: {reason}"]


async def test_unreadable_machine_at_the_start_is_read_again(
    made_up: MadeUpMachine, disk: Disk
) -> None:
    seen, before = Seen(), machine.read(made_up.root)
    made_up.set_offline(3)
    disk.failing["/cpu/online"] = errno.EIO
    with MachineWatch(made_up.root, before, seen.change, seen.error):
        assert len(seen.errors) == 1
        disk.failing.clear()
        await asyncio.wait_for(seen.changed.wait(), PATIENCE)
    assert [one.online for one in seen.machines] == [{0, 1, 2}]


async def test_second_failure_after_a_success_is_reported_again(
    made_up: MadeUpMachine, disk: Disk
) -> None:
    seen, before = Seen(), machine.read(made_up.root)
    with MachineWatch(made_up.root, before, seen.change, seen.error):
        for _ in range(2):
            seen.failed.clear()
            seen.changed.clear()
            disk.failing["/cpu1/topology/core_id"] = errno.EIO
            made_up.set_offline(3)
            await asyncio.wait_for(seen.failed.wait(), PATIENCE)
            disk.failing.clear()
            await asyncio.wait_for(seen.changed.wait(), PATIENCE)
            made_up.set_online(3)
            await asyncio.wait_for(until_online(seen), PATIENCE)
    assert len(seen.errors) == 2


async def until_online(seen: Seen) -> None:
    """Waits until all CPUs were seen online."""
    while seen.machines[-1].online != {0, 1, 2, 3}:
        seen.changed.clear()
        await seen.changed.wait()


def test_topology_that_vanishes_between_two_reads_is_unknown(
    made_up: MadeUpMachine, disk: Disk
) -> None:
    disk.failing["/cpu3/topology/core_id"] = errno.ENOENT
    disk.failing["/cpu3/topology/core_cpus_list"] = errno.ENODEV
    present = machine.read(made_up.root)
    assert present.cpus[3].core is None
    assert present.cpus[3].siblings == {3}


# In a network namespace of its own: nobody else receives its uevents. 15 is NETLINK_KOBJECT_UEVENT
# of <linux/netlink.h>. The messages are not the kernel's, so they are ignored; but they fill the
# queue.
OVERRUN = """
import asyncio, ctypes, pathlib, socket, sys
if ctypes.CDLL(None).unshare(0x40000000) != 0:  # CLONE_NEWNET of <linux/sched.h>
    sys.exit(99)
import pyudev
from isolcpus_dp.host import hotplug

start = pyudev.Monitor.start

def start_small(monitor):
    start(monitor)
    monitor.set_receive_buffer_size(4096)

async def main():
    changes = []
    changed = asyncio.Event()
    pyudev.Monitor.start = start_small
    with hotplug.watch(pathlib.Path("/sys"), lambda: (changes.append(1), changed.set())):
        loop = asyncio.get_running_loop()
        for _ in range(2):
            changed.clear()
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as sender:
                for _ in range(100):
                    sender.sendto(bytes(1000), (0, 1))
            await asyncio.wait_for(changed.wait(), 10)
            for _ in range(1000):
                await asyncio.sleep(0)
    print(len(changes))

asyncio.run(main())
"""


def test_lost_uevents_are_one_change_and_no_busy_loop() -> None:
    if not Path("/sys/kernel/uevent_seqnum").exists():
        pytest.skip("/sys is not a real sysfs")
    command = [sys.executable, "-c", OVERRUN]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if ended.returncode == 99:
        pytest.skip("a network namespace needs CAP_SYS_ADMIN")
    assert (ended.stdout, ended.stderr) == ("2\n", "")


async def test_pinning_daemon_waits_for_a_machine_that_can_be_read(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    online = host.machine.root / "devices/system/cpu/online"
    online.rename(online.with_name("moved"))
    online.mkdir()
    environment = {**plain_environment(), "WATCHDOG_USEC": "30000000"}
    async with supervisor(host, "pin", environment=environment).running() as daemon:
        failed = await daemon.until(lambda run: run.is_ready and run.fed >= 3)
        reason = f"cannot read {online}: Is a directory"
        assert failed.status == f"Failed, trying again: {reason}"
        online.rmdir()
        online.with_name("moved").rename(online)
        await runtime.until_connected()
        assert len(daemon.runs) == 1
    assert host.log.count("; trying again, at intervals of up to 10 s\n") == 1
