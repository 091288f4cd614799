"""A host without SMT, container runtimes, and the pinning daemon as a separate process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.machine import regular
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.daemon import connected, supervisor
from tests.testbed.host import RESOURCE, Host, made_up_host
from tests.testbed.runtime import Runtime

# The annotation of a container that owns CPUs.
OWNER = {RESOURCE: "2-3"}

StartRuntime = Callable[..., Awaitable[Runtime]]


@pytest.fixture
def host() -> Iterator[Host]:
    """2 NUMA nodes of 4 CPUs, of which 2-3 and 6-7 are isolated."""
    with made_up_host(regular(2, 4, 1), {2, 3, 6, 7}) as host:
        yield host


@pytest.fixture
async def start_runtime(host: Host) -> AsyncIterator[StartRuntime]:
    """Starts runtimes. Each one has the pods and containers of those before it."""
    pods: dict[str, api.PodSandbox] = {}
    containers: dict[str, api.Container] = {}
    running: list[Runtime] = []

    async def start(kind: type[Runtime] = Runtime, **more: Any) -> Runtime:
        # containerd waits 2 s, which may be too short on a busy machine. bench/ measures that.
        running.append(kind(host.nri_socket, pods, containers, request_seconds=20, **more))
        await running[-1].start()
        return running[-1]

    yield start
    for runtime in running:
        await runtime.stop()


@pytest.fixture
def runtime_name() -> str:
    """The name of `runtime`, unless a test overrides it."""
    return "simulated"


@pytest.fixture
async def runtime(start_runtime: StartRuntime, runtime_name: str) -> Runtime:
    """A running container runtime."""
    return await start_runtime(name=runtime_name)


@pytest.fixture
def pod(runtime: Runtime) -> api.PodSandbox:
    """A pod without a cgroup."""
    return runtime.run_pod("a")


@pytest.fixture
async def starting_owner(runtime: Runtime, pod: api.PodSandbox) -> api.Container:
    """A container that owns CPU 2-3, created without the daemon and not yet started."""
    return await runtime.create(pod, "owner", OWNER, starts=False)


@pytest.fixture
async def starting_other(runtime: Runtime, pod: api.PodSandbox) -> api.Container:
    """A container that owns no CPU, created without the daemon and not yet started."""
    return await runtime.create(pod, "other", starts=False)


@pytest.fixture(name="connected")
async def connected_with_runtime(
    host: Host, configuration: str, runtime: Runtime
) -> AsyncIterator[Supervisor]:
    """The daemon, synchronized with `runtime`. Fixtures with older containers come before it."""
    async with connected(supervisor(host, "pin", configuration), runtime) as daemon:
        yield daemon


@pytest.fixture
async def owner(runtime: Runtime, pod: api.PodSandbox, connected: Supervisor) -> api.Container:
    """A running container that owns CPU 2-3."""
    return await runtime.create(pod, "owner", OWNER)


@pytest.fixture
async def other(runtime: Runtime, pod: api.PodSandbox, connected: Supervisor) -> api.Container:
    """A running container that owns no CPU."""
    return await runtime.create(pod, "other")
