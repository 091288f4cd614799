"""A simulated host, the device plugin as a separate process, and kubelets."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

# As the command line does, before gRPC is loaded: Python 3.9 runs its handlers before an exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from isolcpus_dp.simulator import timing
from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from isolcpus_dp.simulator.machine import regular
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import is_ready, registered, supervisor
from tests.testbed.host import Host, made_up_host

# Files that a group can write are not trusted.
os.umask(0o022)

StartKubelet = Callable[..., Awaitable[Kubelet]]


@pytest.fixture
def host() -> Iterator[Host]:
    """2 NUMA nodes of 4 cores with 2 threads; one core of each is isolated: 1,9 and 5,13."""
    with made_up_host(regular(2, 4, 2), (1, 5, 9, 13)) as host:
        yield host


@pytest.fixture
def configuration() -> str:
    """The text of the configuration file, empty unless a test overrides it."""
    return ""


@pytest.fixture
async def start_kubelet(host: Host) -> AsyncIterator[StartKubelet]:
    """Starts kubelets on the host; those still running are stopped at the end."""
    running: list[Kubelet] = []

    async def start(
        *static_pods: Pod,
        kind: type[Kubelet] = Kubelet,
        admission: timing.Admission = timing.LATE_ENOUGH,
        topology_policy: str = "none",
    ) -> Kubelet:
        started = kind(host.kubelet_dir, host.containers, static_pods, admission, topology_policy)
        running.append(started)
        await started.start()
        return started

    yield start
    for started in running:
        await started.stop()


@pytest.fixture
def topology_policy() -> str:
    """The topology manager policy of `kubelet`, none unless a test overrides it."""
    return "none"


@pytest.fixture
async def kubelet(start_kubelet: StartKubelet, topology_policy: str) -> Kubelet:
    """A running kubelet without static pods."""
    return await start_kubelet(topology_policy=topology_policy)


@pytest.fixture
async def serving(host: Host, configuration: str) -> AsyncIterator[Supervisor]:
    """The running device plugin, with or without a kubelet."""
    async with supervisor(host, "serve", configuration).running() as daemon:
        await daemon.worker(is_ready)
        yield daemon


@pytest.fixture(name="registered")
async def registered_with_kubelet(
    host: Host, configuration: str, kubelet: Kubelet
) -> AsyncIterator[Supervisor]:
    """The device plugin, registered with `kubelet`, which has received its devices."""
    async with registered(supervisor(host, "serve", configuration), kubelet) as daemon:
        yield daemon
