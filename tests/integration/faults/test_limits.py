"""No descriptors, no inotify instances or watches, and a full runtime directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.integration.conftest import StartKubelet
from tests.integration.pin.conftest import StartRuntime, start_runtime
from tests.testbed.daemon import (
    connected,
    has_devices,
    is_ready,
    is_registered,
    plain_environment,
    supervisor,
)
from tests.testbed.host import Host
from tests.testbed.runtime import cpus
from tests.testbed.wait import until

__all__ = ["start_runtime"]  # a fixture

LIMITS = (
    "see the limits of open files and of inotify(7), fs.inotify.max_user_instances and"
    " max_user_watches; trying again, at intervals of up to 10 s\n"
)

# inotify_add_watch(2) fails below this directory until the file exists.
USED_UP_WATCHES = """
import errno, os, pathlib
from isolcpus_dp.host import inotify
add, enough = inotify.Watch.add, pathlib.Path({enough!r})
def add_if_possible(watch, directory, *more):
    if {below!r} in str(directory) and not enough.exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
    add(watch, directory, *more)
inotify.Watch.add = add_if_possible
"""

# The same for inotify_init1(2).
USED_UP_INSTANCES = """
import errno, os, pathlib
from isolcpus_dp.host import inotify
enter, enough = inotify.Watch.__enter__, pathlib.Path({enough!r})
def enter_if_possible(watch):
    if pathlib.Path({host!r}, "used-up").exists() and not enough.exists():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return enter(watch)
inotify.Watch.__enter__ = enter_if_possible
"""


@contextlib.contextmanager
def no_descriptor(pid: int) -> Iterator[None]:
    """In the block, the process can open no descriptor."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


async def test_main_process_without_descriptors_forks_when_it_has_some(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    first = await registered.worker(is_registered)
    main = registered.current.pid
    assert main
    with no_descriptor(main):
        os.kill(first.pid, signal.SIGKILL)
        await registered.until(
            lambda run: run.status.startswith("Failed, trying again: [Errno 24]")
        )
        assert LIMITS in host.log
    await registered.worker(is_registered, other_than=first)
    await has_devices(kubelet)
    assert len(registered.runs) == 1
    assert "Traceback" not in host.log


async def test_waiting_worker_without_descriptors_is_replaced(
    host: Host, serving: Supervisor, start_kubelet: StartKubelet
) -> None:
    """The limit of the next worker is that of the main process."""
    first = await serving.worker(is_ready)
    with no_descriptor(first.pid):
        kubelet = await start_kubelet()
        await serving.worker(is_registered, other_than=first)
    await has_devices(kubelet)
    assert f"[Errno 24] Too many open files: {LIMITS}" in host.log
    assert "Traceback" not in host.log


async def test_registered_worker_without_descriptors_keeps_its_kubelet(
    host: Host, kubelet: Kubelet, registered: Supervisor
) -> None:
    worker = await registered.worker(is_registered)
    with no_descriptor(worker.pid):
        host.machine.set_offline(13)
        await until(lambda: "could not read the CPUs: " in host.log)
        assert kubelet.allocatable("windriver.com/isolcpus") == 4
    # No event says that there are descriptors again.
    await has_devices(kubelet, 3)
    assert host.log.count(": Too many open files; continuing as before\n") == 1
    assert len(registered.workers) == 1


async def test_pinning_daemon_without_descriptors_connects_when_it_has_some(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with connected(supervisor(host, "pin"), runtime) as daemon:
        pid = daemon.current.pid
        assert pid
        with no_descriptor(pid):
            await runtime.stop()
            second = await start_runtime()
            await daemon.until(lambda run: run.status.startswith("Failed, trying again: "))
        await second.until_connected()
        assert len(daemon.runs) == 1
    assert host.log.count(f"[Errno 24] Too many open files: {LIMITS}") == 1
    assert "Traceback" not in host.log


async def test_worker_without_inotify_watches_is_replaced_until_there_are_some(
    host: Host, kubelet: Kubelet
) -> None:
    enough = host.directory / "enough"
    prelude = USED_UP_WATCHES.format(enough=os.fspath(enough), below="/kubelet")
    async with supervisor(host, "serve", prelude=prelude).running() as daemon:
        await daemon.until(lambda run: run.status.startswith("Failed, trying again: "))
        enough.touch()
        await has_devices(kubelet)
        assert len(daemon.runs) == 1
    message = f"[Errno 28] No space left on device: '{host.kubelet_dir}': {LIMITS}"
    assert host.log.count(message) == 1
    assert "Traceback" not in host.log


async def test_pinning_daemon_without_inotify_watches_connects_when_there_are_some(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    enough = host.directory / "enough"
    prelude = USED_UP_WATCHES.format(enough=os.fspath(enough), below="/nri")
    async with supervisor(host, "pin", prelude=prelude).running() as daemon:
        await daemon.until(lambda run: run.status.startswith("Failed, trying again: "))
        enough.touch()
        await runtime.until_connected()
        assert len(daemon.runs) == 1
    message = f"[Errno 28] No space left on device: '{host.nri_socket.parent}': {LIMITS}"
    assert host.log.count(message) == 1
    assert "Traceback" not in host.log


async def test_pinning_daemon_without_inotify_instances_connects_when_there_are_some(
    host: Host, start_runtime: StartRuntime
) -> None:
    """The CPUs change while there are none: a new connection needs one."""
    runtime = await start_runtime()
    enough = host.directory / "enough"
    prelude = USED_UP_INSTANCES.format(enough=os.fspath(enough), host=os.fspath(host.directory))
    async with connected(supervisor(host, "pin", prelude=prelude), runtime) as daemon:
        (host.directory / "used-up").touch()
        host.machine.set_offline(0)
        await daemon.until(lambda run: run.status.startswith("Failed, trying again: "))
        enough.touch()
        await until(lambda: runtime.synchronized == 2)
        other: api.Container = await runtime.create(runtime.run_pod("a"), "other")
        assert cpus(other) == "2-4,6-8,10-12,14-15"
        assert len(daemon.runs) == 1
    assert host.log.count(f"[Errno 24] Too many open files: {LIMITS}") == 1
    assert "Traceback" not in host.log


@pytest.fixture
def full(host: Host) -> Iterator[Path]:
    """A directory on a file system that has no room for another file."""
    directory = host.directory / "full"
    directory.mkdir()
    options = "size=64k,nr_inodes=4"
    command = ["mount", "-t", "tmpfs", "-o", options, "none", os.fspath(directory)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount: {mounted.stderr.strip()}")
    try:
        with contextlib.suppress(OSError):
            (directory / "large").write_bytes(bytes(1 << 20))
        with contextlib.suppress(OSError):
            for number in range(4):
                (directory / str(number)).touch()
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


async def test_device_plugin_registers_with_a_full_runtime_directory(
    host: Host, kubelet: Kubelet, full: Path
) -> None:
    before = sorted(full.iterdir())
    with (host.directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *host.command("serve"), stderr=log,
            env={**plain_environment(), "RUNTIME_DIRECTORY": os.fspath(full)},
        )  # fmt: skip
    await has_devices(kubelet)
    await until(lambda: host.log.count("could not write") == 3)
    process.terminate()
    assert await process.wait() == 0
    for name in ("registered", "isolcpus-dp.pid", "configuration"):
        assert f"could not write {full}/{name}: No space left on device; " in host.log
    assert sorted(full.iterdir()) == before


async def test_pinning_daemon_connects_with_a_full_runtime_directory(
    host: Host, start_runtime: StartRuntime, full: Path
) -> None:
    runtime = await start_runtime()
    with (host.directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *host.command("pin"), stderr=log,
            env={**plain_environment(), "RUNTIME_DIRECTORY": os.fspath(full)},
        )  # fmt: skip
    await runtime.until_connected()
    process.terminate()
    assert await process.wait() == 0
    assert host.log.count(f"could not write {full}/configuration: No space left on device; ") == 1
