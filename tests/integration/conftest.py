"""The daemon as a process of its own, a made-up machine, and kubelets to meet."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# As the command line does, before gRPC is loaded: Python 3.9 runs its handlers before an exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.machine import MadeUpMachine, regular
from isolcpus_dp.simulator.supervisor import Supervisor

RESOURCE = "windriver.com/isolcpus"


@dataclass
class Host:
    """A host in a folder: 2 NUMA nodes of 4 cores with 2 threads, one core of each isolated."""

    folder: Path
    machine: MadeUpMachine

    @property
    def kubelet_dir(self) -> Path:
        return self.folder / "kubelet"

    @property
    def socket(self) -> Path:
        return paths.registration_socket(self.kubelet_dir)

    @property
    def endpoint(self) -> Path:
        return self.socket.with_name("windriver.com-isolcpus.sock")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def environment(self) -> dict[str, str]:
        """The daemon's log is plain text, whatever collects the output of the tests."""
        return {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}

    def command(self, *more: str | Path) -> list[str | Path]:
        serve: list[str | Path] = [sys.executable, "-m", "isolcpus_dp", "serve"]
        return [*serve, "--sysfs", self.machine.root, "--kubelet-dir", self.kubelet_dir, *more]

    def daemon(self, configuration: str = "") -> Supervisor:
        file = self.folder / "isolcpus-dp.conf"
        file.write_text(configuration)
        return Supervisor(self.command("--config", file), self.folder, self.environment)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what nothing here tells of."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not true in 10 s")


@pytest.fixture
def host() -> Iterator[Host]:
    # Not tmp_path, whose names are longer than the path of a socket may be.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths.device_plugins(folder / "kubelet").mkdir(parents=True)
        yield Host(folder, MadeUpMachine(folder / "sys", regular(2, 4, 2), (1, 5, 9, 13)))


@pytest.fixture
async def start_kubelet(host: Host) -> AsyncIterator[Callable[..., object]]:
    """Starts kubelets on the host, one after another; what still runs is stopped at the end."""
    running: list[Kubelet] = []

    async def start(
        *static_pods: Pod, kind: type[Kubelet] = Kubelet, topology_policy: str = "none"
    ) -> Kubelet:
        # Later than the 60 ms of a real kubelet, which a busy machine may miss: bench/ measures.
        containers = host.folder / "containers"
        started = kind(host.kubelet_dir, containers, static_pods, 3.0, topology_policy)
        running.append(started)
        await started.start()
        return started

    yield start
    for started in running:
        await started.stop()
