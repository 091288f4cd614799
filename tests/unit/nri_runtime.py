"""A container runtime in the process of the test: it calls plugins as containerd does.

tests/testbed has a larger one; package builds have only the files beside this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri.protocol import PLUGIN_SERVICE, TO_PLUGIN, TO_RUNTIME
from isolcpus_dp.nri.ttrpc import CallError, Code, Connection

POD = api.PodSandbox(id="sandbox", name="a", uid="uid", namespace="default")


def container(
    name: str, cpus: str = "", state: Any = api.CONTAINER_RUNNING, owns: str = ""
) -> api.Container:
    """A container of POD with this cpuset; `owns` is its annotation."""
    resources = api.LinuxResources(cpu=api.LinuxCPU(cpus=cpus))
    return api.Container(
        id=name,
        name=name,
        pod_sandbox_id=POD.id,
        state=state,
        annotations={"windriver.com/isolcpus": owns} if owns else {},
        linux=api.LinuxContainer(resources=resources),
    )


class Runtime:
    """Lists its containers to each plugin that registers, and applies what it answers."""

    def __init__(self) -> None:
        self.containers: list[api.Container] = []
        self.accepts: Callable[[], bool] = lambda: True
        self.may_synchronize = asyncio.Event()
        self.may_synchronize.set()
        self.drops = False  # whether it closes each connection after Synchronize
        self.registered = 0  # number of plugins
        self.updated: list[tuple[str, str]] = []  # by UpdateContainers: container and cpuset
        self.plugins: list[Connection] = []  # the synchronized ones
        self.alive_at_synchronize: list[int] = []  # of the earlier ones, before each Synchronize
        self._tasks: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def listening(self, socket: Path) -> AsyncIterator[None]:
        server = await asyncio.get_running_loop().create_unix_server(self._accept, str(socket))
        try:
            yield
        finally:
            server.close()
            for plugin in self.plugins:
                plugin.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def alive(self) -> list[Connection]:
        return [plugin for plugin in self.plugins if not plugin.lost.is_set()]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until plugins have come or gone so that the condition is true."""

        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), 20)

    async def create(self, container: api.Container) -> str:
        """Asks the plugins about a new container; its cpuset. Raises CallError."""
        request = api.CreateContainerRequest(pod=POD, container=container)
        set_by = []
        for plugin in self.alive:
            payload = await self.call(plugin, "CreateContainer", request)
            answer = api.CreateContainerResponse.FromString(payload)
            set_by.append(answer.adjust.linux.resources.cpu.cpus)
        [cpus] = [one for one in set_by if one] or [container.linux.resources.cpu.cpus]
        container.linux.resources.cpu.cpus = cpus
        self.containers.append(container)
        return cpus

    async def call(self, plugin: Connection, method: str, request: Any) -> bytes:
        return await plugin.call(PLUGIN_SERVICE, method, request.SerializeToString(), 20)

    def _accept(self) -> Connection:
        def answer(service: str, method: str, payload: bytes) -> bytes:
            if method != "RegisterPlugin":
                request = api.UpdateContainersRequest.FromString(payload)
                self.updated += [
                    (one.container_id, one.linux.resources.cpu.cpus) for one in request.update
                ]
                self._changed.set()
                return api.UpdateContainersResponse().SerializeToString()
            if not self.accepts():
                raise CallError(Code.UNKNOWN, "the name is in use")
            self.registered += 1
            self._tasks.append(asyncio.create_task(self._serve(made)))
            return b""

        made = Connection(TO_RUNTIME, TO_PLUGIN, answer)
        return made

    async def _serve(self, plugin: Connection) -> None:
        name = api.ConfigureRequest(runtime_name="r", runtime_version="1")
        await self.call(plugin, "Configure", name)
        self._changed.set()
        await self.may_synchronize.wait()
        self.alive_at_synchronize.append(len(self.alive))
        listed = api.SynchronizeRequest(pods=[POD], containers=self.containers)
        answer = await self.call(plugin, "Synchronize", listed)
        updates = {
            one.container_id: one for one in api.SynchronizeResponse.FromString(answer).update
        }
        for one in self.containers:
            if one.id in updates:
                one.linux.resources.MergeFrom(updates[one.id].linux.resources)
        self.plugins.append(plugin)
        self._changed.set()
        if self.drops:
            plugin.close()
        await plugin.lost.wait()
        self._changed.set()
