"""The kubelet of the soak, a process in the guest: static pods come and go with their manifests.

It is the simulator's kubelet, with containers in containerd. When it starts it reads its
checkpoint, lists what runs, goes on with the pods that have a manifest, and removes all others.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc

from isolcpus_dp.api import deviceplugin_pb2 as deviceplugin
from isolcpus_dp.kubelet.paths import DEFAULT_DIRECTORY, checkpoint
from isolcpus_dp.simulator.devices import Checkpoint
from isolcpus_dp.simulator.kubelet import AdmissionError, Kubelet
from isolcpus_dp.simulator.kubelet import Pod as Request
from tests.vm import pods
from tests.vm.soak import manifest, paths
from tests.vm.soak.containers import Containers, channel, node_name
from tests.vm.soak.manifest import RESOURCE, Pod

IMAGE = "localhost/workload:1"
MARKS = Path("/run/simulated-containers")

# How often it reads the manifests, and how often it lists the containers.
_TICK_SECONDS, _RELIST_SECONDS = 0.5, 10.0
# It waits at most so long for the devices before it admits its first pods.
_REGISTRATION_SECONDS = 30.0
_RETRY_SECONDS = 1.0

log = logging.getLogger("kubelet")


class Pods:
    """The pods of one run of the kubelet.

    By name of a pod, `phases` gets Pending, Running, Ending or `Failed: reason`.
    """

    def __init__(
        self,
        kubelet: Kubelet,
        runtime: grpc.aio.Channel,
        phases: dict[str, str],
        write_status: Callable[[], None],
    ) -> None:
        self._phases = phases
        self._write_status = write_status
        self._kubelet = kubelet
        self._containers = Containers(runtime, IMAGE, self._answer)
        self._pods: dict[str, Pod] = {}
        self._found: dict[str, Pod] = {}  # those with a manifest at the first look
        self._work: dict[str, asyncio.Task[None]] = {}
        self._node = node_name()

    async def run(self) -> None:
        """Follows the manifests for ever."""
        await self._retry(self._adopt)
        listed = asyncio.get_running_loop().time()
        while True:
            wanted = manifest.read(paths.MANIFESTS, self._node, self._pods)
            for name, pod in {**self._found, **self._pods}.items():
                if name not in wanted:
                    self._pods.pop(name, None)
                    self._set(name, "Ending")
                    self._spawn(name, self._end(pod))
            self._found = {}
            for name in wanted.keys() - self._pods.keys():
                await self._admit(wanted[name])
            now = asyncio.get_running_loop().time()
            if now - listed > _RELIST_SECONDS:
                await self._relist()
                listed = now
            await asyncio.sleep(_TICK_SECONDS)

    async def _adopt(self) -> None:
        """Removes what belongs to no manifest, and marks the containers that run."""
        await self._containers.remove_what_does_not_run()
        wanted = manifest.read(paths.MANIFESTS, self._node, {})
        self._found = wanted
        uids = {pod.uid for pod in wanted.values()}
        for sandbox in await self._containers.sandboxes():
            if sandbox.metadata.uid not in uids:
                log.info("removing the pod %s, which has no manifest", sandbox.metadata.name)
                await self._containers.remove(sandbox.metadata.uid)
        holders = Checkpoint(checkpoint(self._kubelet.directory)).pods()
        for name in {*holders, *(path.name for path in MARKS.iterdir())}:
            if name not in wanted:
                self._kubelet.delete(name)
        running = {
            pod for pod, container in await self._containers.running() if container == "main"
        }
        for name in wanted:
            mark = MARKS / name
            if name in running:
                mark.touch()
            else:
                mark.unlink(missing_ok=True)
        if any(pod.devices and name not in running for name, pod in wanted.items()):
            try:
                await self._kubelet.registration(RESOURCE, _REGISTRATION_SECONDS)
            except asyncio.TimeoutError:
                log.info("admitting pods without %s", RESOURCE)

    async def _admit(self, pod: Pod) -> None:
        self._pods[pod.name] = pod
        requests = {RESOURCE: pod.devices} if pod.devices else {}
        try:
            await self._kubelet.admit(Request(pod.name, requests))
        except AdmissionError:
            self._set(pod.name, self._kubelet.pods[pod.name])
            self._spawn(pod.name, self._retry(lambda: self._containers.remove(pod.uid)))
        else:
            self._set(pod.name, "Pending")
            self._spawn(pod.name, self._start(pod))

    async def _start(self, pod: Pod) -> None:
        await self._retry(lambda: self._containers.start(pod), lambda: self._is_wanted(pod))
        if self._is_wanted(pod):
            self._set(pod.name, "Running")

    async def _end(self, pod: Pod) -> None:
        await self._retry(lambda: self._containers.remove(pod.uid))
        self._kubelet.delete(pod.name)
        self._phases.pop(pod.name)
        self._write_status()

    async def _relist(self) -> None:
        """Starts again what has ended by itself, and removes what another start has left over.

        A runtime may go on with a call whose kubelet has ended, after the next kubelet's first
        look. A real kubelet removes such a container in its garbage collection.
        """
        settled = {
            pod.uid for name, pod in self._pods.items() if self._phases.get(name) == "Running"
        }
        try:
            await self._containers.collect_garbage(settled)
            running = await self._containers.running()
        except grpc.aio.AioRpcError as error:
            log.info("could not list the containers: %s", error.details())
            return
        for name, pod in self._pods.items():
            lacking = {(name, container) for container in pod.container_names} - running
            if self._phases.get(name) == "Running" and lacking:
                log.info("starting %s again", lacking)
                self._set(name, "Pending")
                self._spawn(name, self._start(pod))

    def _is_wanted(self, pod: Pod) -> bool:
        return self._pods.get(pod.name) is pod

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Does something with a pod, after what is being done with it."""
        before = self._work.get(name)

        async def do() -> None:
            if before:
                await before
            await work

        self._work[name] = asyncio.create_task(do())

    async def _retry(
        self,
        attempt: Callable[[], Awaitable[None]],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        while is_wanted():
            try:
                return await attempt()
            except (grpc.aio.AioRpcError, OSError, subprocess.CalledProcessError) as error:
                log.info("trying again: %s", describe(error))
                await asyncio.sleep(_RETRY_SECONDS)
        return None

    async def _answer(
        self, pod: str, container: pods.Json
    ) -> deviceplugin.ContainerAllocateResponse:
        held = self._kubelet.answers(pod) if container["name"] == "main" else {}
        return held.get(RESOURCE, deviceplugin.ContainerAllocateResponse())

    def _set(self, name: str, phase: str) -> None:
        log.info("pod %s: %s", name, phase)
        self._phases[name] = phase
        self._write_status()


def describe(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    phases: dict[str, str] = {}

    def write_status() -> None:
        status = {"pid": os.getpid(), **kubelet.node_status(), "phases": phases}
        temporary = paths.STATUS.with_name(f".{paths.STATUS.name}")
        temporary.write_text(json.dumps(status))
        temporary.rename(paths.STATUS)

    paths.MANIFESTS.mkdir(parents=True, exist_ok=True)
    kubelet = Kubelet(DEFAULT_DIRECTORY, MARKS, on_change=write_status)
    await kubelet.start()
    write_status()
    async with channel() as runtime:
        work = asyncio.create_task(Pods(kubelet, runtime, phases, write_status).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, work.cancel)
        await asyncio.wait([work])
        if not work.cancelled():
            await work  # raises what has ended it
    await kubelet.stop()


if __name__ == "__main__":
    asyncio.run(main())
