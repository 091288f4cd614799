"""The pinning daemon in this process: what happens to its connection and to containers."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isolcpus_dp import config
from isolcpus_dp.host import machine
from isolcpus_dp.nri import daemon as pin
from isolcpus_dp.nri.outcome import Outcome
from isolcpus_dp.nri.session import Session
from isolcpus_dp.nri.ttrpc import CallError
from isolcpus_dp.service import reload
from isolcpus_dp.simulator.machine import MadeUpMachine
from tests.testbed.wait import until

from .conftest import MakeUp
from .nri_runtime import Runtime, container

KEEP = "[Pinning]\nKeepOthersOff=yes\n"
LENIENT = "[Pinning]\nKeepOthersOff=no\n"


@pytest.fixture
def host(make_up: MakeUp) -> MadeUpMachine:
    """CPUs 0-3, of which 2-3 are isolated; cgroup v1."""
    return make_up("1x4x1", {2, 3})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text(KEEP)
    return file


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime that listens on the socket of `daemon`."""
    made = Runtime()
    async with made.listening(tmp_path / "nri.sock"):
        yield made


@pytest.fixture
async def daemon(
    host: MadeUpMachine, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[None]:
    """The daemon, while it runs. A test that asks for `runtime`, too, has it before."""
    caplog.set_level(logging.INFO, "isolcpus_dp")
    present = machine.read(host.root)
    settings = config.load(file, present.last)
    paths = pin.Host(host.root, tmp_path / "nri.sock", None)
    rules = paths.rules(present, settings)
    running = asyncio.create_task(pin.Daemon(paths, file, settings, present, rules).live())
    await asyncio.sleep(0)
    yield
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, 20)
    reload.release()
    assert caplog.messages[-1] == "asked to stop"


async def reload_with(file: Path, text: str) -> None:
    file.write_text(text)
    os.kill(os.getpid(), signal.SIGHUP)


async def synchronized(runtime: Runtime, times: int) -> None:
    """Waits until so many plugins were synchronized, and only the last one is connected."""
    await runtime.until(lambda: len(runtime.plugins) == times and len(runtime.alive) == 1)


@pytest.mark.usefixtures("daemon")
async def test_runtime_always_has_exactly_one_plugin(runtime: Runtime, host: MadeUpMachine) -> None:
    await synchronized(runtime, 1)
    host.set_offline(1)
    await synchronized(runtime, 2)
    host.set_online(1)
    await synchronized(runtime, 3)
    assert runtime.alive_at_synchronize == [0, 1, 1]


@pytest.mark.usefixtures("daemon")
async def test_outdated_plugin_answers_by_the_new_rules_until_it_is_replaced(
    runtime: Runtime, host: MadeUpMachine
) -> None:
    await synchronized(runtime, 1)
    runtime.may_synchronize.clear()
    host.set_offline(1)
    await runtime.until(lambda: runtime.registered == 2)
    assert await runtime.create(container("first")) == "0"
    host.set_online(1)
    await runtime.until(lambda: runtime.registered == 3)
    assert await runtime.create(container("second")) == "0-1"
    runtime.may_synchronize.set()
    await synchronized(runtime, 2)
    assert await runtime.create(container("third")) == "0-1"


@pytest.mark.usefixtures("daemon")
async def test_runtime_with_room_for_one_plugin_is_connected_again(
    runtime: Runtime, host: MadeUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.accepts = lambda: not runtime.alive
    await synchronized(runtime, 1)
    host.set_offline(1)
    await synchronized(runtime, 2)
    assert await runtime.create(container("new")) == "0"
    assert (
        "the runtime rejected a second connection of the plugin: the name is in use; closing the"
        " first one and connecting again"
    ) in caplog.messages


@pytest.mark.usefixtures("daemon")
async def test_dropped_plugin_connects_later_each_time(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def retry_seconds(outcome: Outcome, times: int) -> float:
        asked.append((outcome.name, times))
        return 0.01

    monkeypatch.setattr(Outcome, "retry_seconds", retry_seconds)
    runtime.drops = True
    await runtime.until(lambda: runtime.registered >= 4)
    assert asked[:3] == [("DROPPED", 1), ("DROPPED", 2), ("DROPPED", 3)]


@pytest.mark.usefixtures("daemon")
async def test_update_in_which_the_runtime_may_have_ended_is_repeated(runtime: Runtime) -> None:
    """The next runtime reports the new cpuset, whether the container has it or not."""
    found = container("plain", "0-3")
    runtime.containers.append(found)
    runtime.drops = True
    await runtime.until(lambda: len(runtime.plugins) == 1)
    runtime.drops = False
    assert found.linux.resources.cpu.cpus == "0-1"
    await runtime.until(lambda: len(runtime.updated) == 1)
    assert runtime.updated == [("plain", "0-1")]


@pytest.mark.usefixtures("daemon")
async def test_update_after_which_the_runtime_has_gone_on_is_not_repeated(runtime: Runtime) -> None:
    runtime.containers.append(container("plain", "0-3"))
    await synchronized(runtime, 1)
    assert await runtime.create(container("new")) == "0-1"
    runtime.plugins[0].close()
    await synchronized(runtime, 2)
    assert await runtime.create(container("newer")) == "0-1"
    assert runtime.updated == []


@pytest.mark.usefixtures("daemon")
async def test_change_of_cpus_that_could_not_be_applied_is_applied_later(
    runtime: Runtime, host: MadeUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    await synchronized(runtime, 1)
    file = host.root / "devices/system/node/has_memory"
    aside = file.rename(file.with_name("aside"))
    file.mkdir()  # read(2) fails
    host.set_offline(1)
    await until(lambda: "could not read the CPUs" in caplog.text)
    file.rmdir()
    aside.rename(file)
    await synchronized(runtime, 2)
    assert await runtime.create(container("new")) == "0"


@pytest.mark.usefixtures("daemon")
async def test_ended_sessions_are_not_kept(runtime: Runtime, host: MadeUpMachine) -> None:
    gc.disable()  # Python would collect them some time
    try:
        for times in range(1, 12, 2):
            await synchronized(runtime, times)
            host.set_offline(1)
            await synchronized(runtime, times + 1)
            host.set_online(1)
        kept = [one for one in gc.get_objects() if isinstance(one, Session)]
    finally:
        gc.enable()
    # The one that is connected, the one before it, and the next one.
    assert len(kept) <= 3


@pytest.mark.usefixtures("daemon")
async def test_others_get_their_cpus_back_without_keepothersoff(
    runtime: Runtime, file: Path
) -> None:
    found = [container("plain"), container("wide", "1-3"), container("owner", owns="3")]
    runtime.containers += found
    await synchronized(runtime, 1)
    created = container("created", "0-2")
    assert await runtime.create(created) == "0-1"
    assert [one.linux.resources.cpu.cpus for one in found] == ["0-1", "1", "3"]
    await reload_with(file, LENIENT)
    await synchronized(runtime, 2)
    assert [one.linux.resources.cpu.cpus for one in found] == ["0-3", "1-3", "3"]
    assert created.linux.resources.cpu.cpus == "0-2"
    await reload_with(file, KEEP)
    await synchronized(runtime, 3)
    assert [one.linux.resources.cpu.cpus for one in found] == ["0-1", "1", "3"]


@pytest.mark.usefixtures("daemon")
async def test_others_get_housekeeping_cpus_that_come_online(
    runtime: Runtime, host: MadeUpMachine
) -> None:
    await synchronized(runtime, 1)
    host.set_offline(1)
    await synchronized(runtime, 2)
    plain, chosen = container("plain"), container("chosen", "0")
    assert await runtime.create(plain) == "0"
    assert await runtime.create(chosen) == "0"
    host.set_online(1)
    await synchronized(runtime, 3)
    assert plain.linux.resources.cpu.cpus == "0-1"
    assert chosen.linux.resources.cpu.cpus == "0"  # the kubelet's own choice


@pytest.mark.usefixtures("daemon")
async def test_others_are_refused_while_no_housekeeping_cpu_is_online(
    runtime: Runtime, host: MadeUpMachine, caplog: pytest.LogCaptureFixture
) -> None:
    await synchronized(runtime, 1)
    host.set_offline(0, 1)
    await synchronized(runtime, 2)
    with pytest.raises(CallError, match="isolcpus-dp: no housekeeping CPU is left for containers"):
        await runtime.create(container("plain"))
    assert await runtime.create(container("owner", owns="2")) == "2"
    sentence = (
        "no housekeeping CPU is left for containers that own none: all CPUs that they could use,"
        " 2-3, are isolated; isolate fewer CPUs, or set KeepOthersOff=no"
    )
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR] == [
        f"{sentence}; until then, such containers are not created, and existing ones keep the CPUs"
        " that they have",
        f"container plain of pod default/a was not created: {sentence}",
    ]
    host.set_online(0, 1)
    await synchronized(runtime, 3)
    assert await runtime.create(container("plain")) == "0-1"


@pytest.mark.usefixtures("daemon")
async def test_wrong_configuration_keeps_the_connection(
    runtime: Runtime, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await synchronized(runtime, 1)
    await reload_with(file, "[Pinning]\nKeepOthersOff=perhaps\n")
    for _ in range(1000):
        if "stays in force" in caplog.text:
            break
        await asyncio.sleep(0.01)
    assert await runtime.create(container("plain")) == "0-1"
    assert runtime.registered == 1
