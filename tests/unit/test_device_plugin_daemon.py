"""The life of a worker of the device plugin, with a kubelet in the same process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest

from isolcpus_dp import pool
from isolcpus_dp.host import machine, sockets
from isolcpus_dp.kubelet import daemon, paths, resource
from isolcpus_dp.kubelet.endpoint import Endpoint, EndpointError
from isolcpus_dp.kubelet.outcome import Earlier, Outcome
from isolcpus_dp.service import process
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.machine import MadeUpMachine

from .conftest import MakeUp
from .device_plugin import PATIENCE, Exited, Forgetful, Hanging, Log, Rejecting, Worker

RESOURCE = "windriver.com/isolcpus"
Start = Callable[[Kubelet], Awaitable[None]]
StartWorker = Callable[..., Worker]


@pytest.fixture
def host(make_up: MakeUp) -> MadeUpMachine:
    """CPUs 0-3, of which 2-3 are isolated."""
    return make_up("1x4x1", {2, 3})


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kubelet's. Its path is short, as those of sockets must be."""
    directory = tmp_path_factory.mktemp("k")
    paths.device_plugins(directory).mkdir()
    return directory


@pytest.fixture
async def start_worker(
    host: MadeUpMachine, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[StartWorker]:
    """Starts a worker; its servers are closed after the test."""
    endpoints: list[Endpoint] = []
    workers: list[Worker] = []

    class Recorded(Endpoint):
        def remove(self) -> None:
            endpoints.append(self)
            super().remove()

    def exit_now(status: int) -> NoReturn:
        raise Exited(status)

    monkeypatch.setattr(resource, "Endpoint", Recorded)
    monkeypatch.setattr(process, "exit_now", exit_now)
    runtime_dir = tmp_path / "run"
    runtime_dir.mkdir()

    def start(earlier: Earlier | None = None, claims: pool.Claims | None = None) -> Worker:
        where = daemon.Host(host.root, directory, runtime_dir)
        workers.append(Worker(where, machine.read(host.root), earlier or Earlier(), claims))
        return workers[-1]

    yield start
    for worker in workers:
        worker.task.cancel()
    await asyncio.wait([worker.task for worker in workers])
    for endpoint in set(endpoints):
        await endpoint.close()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    handler, logger = Log(), logging.getLogger("isolcpus_dp")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a kubelet, and stops it after the test."""
    kubelets: list[Kubelet] = []

    async def start(kubelet: Kubelet) -> None:
        kubelets.append(kubelet)
        await kubelet.start()

    yield start
    for kubelet in kubelets:
        await kubelet.stop()


@pytest.fixture
async def kubelet(directory: Path) -> Kubelet:
    """It is not started yet."""
    return Kubelet(directory, directory / "containers")


async def test_worker_registers_and_ends_with_its_kubelet(
    start_worker: StartWorker,
    start: Start,
    kubelet: Kubelet,
    log: Log,
    directory: Path,
    tmp_path: Path,
) -> None:
    worker = start_worker()
    await start(kubelet)
    await log.has(f"registered {RESOURCE}: 2 devices, 0 unhealthy with the kubelet, ")
    bound = sockets.identify(paths.registration_socket(directory))
    assert bound
    assert (tmp_path / "run/registered").stat().st_mtime_ns == bound.bound_ns
    # The worker has sent the devices; the kubelet may not have read them yet.
    await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 2, PATIENCE)
    await kubelet.stop()
    assert await worker.ended() == Outcome(bound, registered=True, failure="")
    assert log.messages[:2] == [
        f"offering CPU 2-3 as {RESOURCE}",
        f"waiting for the kubelet at {paths.registration_socket(directory)}",
    ]
    assert log.messages[-1] == (
        f"the kubelet closed the ListAndWatch stream of {RESOURCE}; waiting for the next kubelet"
    )
    assert sorted(entry.name for entry in paths.device_plugins(directory).iterdir()) == [
        "kubelet.sock",
        "kubelet_internal_checkpoint",
    ]


async def test_signal_ends_a_waiting_worker(
    start_worker: StartWorker, log: Log, directory: Path
) -> None:
    worker = start_worker()
    await log.has("waiting for the kubelet")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await worker.ended() == Outcome(None, registered=False, failure="")
    assert list(paths.device_plugins(directory).iterdir()) == []


async def test_worker_ends_when_the_directory_exists(
    start_worker: StartWorker, log: Log, directory: Path
) -> None:
    """The next one binds its socket there."""
    plugins = paths.device_plugins(directory)
    plugins.rmdir()
    worker = start_worker()
    await log.has(f"waiting for the kubelet's directory {plugins}")
    plugins.mkdir()
    await worker.ended()
    assert list(plugins.iterdir()) == []


async def test_worker_ends_when_the_directory_is_removed(
    start_worker: StartWorker, log: Log, directory: Path
) -> None:
    plugins = paths.device_plugins(directory)
    worker = start_worker()
    await log.has("waiting for the kubelet")
    plugins.rename(directory / "moved")
    await worker.ended()
    assert log.messages[-1] == (
        f"{plugins} was removed, moved or replaced; waiting for the next kubelet"
    )


async def test_socket_of_another_plugin_is_an_error(
    start_worker: StartWorker, directory: Path
) -> None:
    path = paths.device_plugins(directory) / "windriver.com-isolcpus.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(EndpointError, match=r"is held by process"):
            await asyncio.wait_for(start_worker().task, PATIENCE)
        assert path.exists()


async def test_cpu_that_goes_offline_is_reported(
    start_worker: StartWorker, start: Start, kubelet: Kubelet, host: MadeUpMachine, log: Log
) -> None:
    start_worker()
    await start(kubelet)
    await log.has("registered")
    host.set_offline(3)
    await log.has("CPU 3 is offline; reported to the kubelet")
    await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 1, PATIENCE)
    host.set_online(3)
    await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 2, PATIENCE)


async def test_cpu_that_its_parent_has_not_claimed_is_offered(
    start_worker: StartWorker, start: Start, kubelet: Kubelet, log: Log
) -> None:
    worker = start_worker(claims=pool.Claims({2: RESOURCE}, {}))
    await start(kubelet)
    await log.has("registered")
    await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 2, PATIENCE)
    await kubelet.stop()
    assert (await worker.ended()).claimed == {3: RESOURCE}


async def test_rejected_registration_is_tried_again(
    start_worker: StartWorker,
    start: Start,
    directory: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon, "_REFUSED_SECONDS", 0.0)
    start_worker()
    await start(Rejecting(directory, directory / "containers"))
    await log.has(
        f"the kubelet rejected the registration of {RESOURCE}: not now; trying again every 0 s"
    )
    await log.has(f"registered {RESOURCE}")


async def test_kubelet_that_opens_no_stream_is_left(
    start_worker: StartWorker,
    start: Start,
    directory: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daemon, "_STREAM_SECONDS", 0.0)
    worker = start_worker()
    await start(Forgetful(directory, directory / "containers"))
    assert not (await worker.ended()).registered
    assert log.messages[-1] == (
        f"the kubelet accepted the registration of {RESOURCE} but opened no ListAndWatch stream"
        " within 0 s; waiting for the next kubelet"
    )


async def test_kubelet_that_is_replaced_during_the_call_is_left(
    start_worker: StartWorker, start: Start, directory: Path, log: Log
) -> None:
    hanging = Hanging(directory, directory / "containers")
    worker = start_worker()
    await start(hanging)
    await hanging.until(lambda: hanging.registrations == 1, PATIENCE)
    replaced = sockets.identify(paths.registration_socket(directory))
    await start(Kubelet(directory, directory / "other-containers"))
    assert await worker.ended() == Outcome(replaced, registered=False, failure="")
    assert log.messages[-1] == "the kubelet's socket was recreated; waiting for the next kubelet"


async def test_kubelet_that_ended_an_earlier_worker_is_called_later(
    start_worker: StartWorker, start: Start, kubelet: Kubelet, log: Log, directory: Path
) -> None:
    await start(kubelet)
    bound = sockets.identify(paths.registration_socket(directory))
    worker = start_worker(Earlier(bound, 3600.0))
    await log.has("waiting for the kubelet")
    await start(Kubelet(directory, directory / "other-containers"))
    await log.has(f"registered {RESOURCE}")
    assert kubelet.registrations == 0
    assert "registered" in worker.told
