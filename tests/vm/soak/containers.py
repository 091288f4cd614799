"""The pods' sandboxes and containers in containerd, as a kubelet keeps them.

Runs in the guest. Every operation can be repeated: after an error, after a restart of containerd,
and by the next kubelet, it continues with what exists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import cri_pb2 as cri
import grpc
from cri_pb2_grpc import RuntimeServiceStub

from tests.vm import pods
from tests.vm.soak.manifest import Pod

log = logging.getLogger("kubelet")

LINKS = Path("/var/log/containers")

# As the kubelet's runtimeRequestTimeout.
_SECONDS = 120.0
# A restarted containerd is used soon.
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]


def channel() -> grpc.aio.Channel:
    """A connection to containerd, and to the next one after a restart."""
    return grpc.aio.insecure_channel(pods.RUNTIME, options=_OPTIONS)


class Containers:
    """Creates and removes sandboxes and containers. All methods may raise AioRpcError."""

    def __init__(self, runtime: grpc.aio.Channel, image: str, allocate: pods.Allocate) -> None:
        self._runtime = RuntimeServiceStub(runtime)
        self._node = pods.Node(allocate, runtime, image)
        # By name of the pod and the container: names that a failed call may have left reserved.
        self._attempts: dict[tuple[str, str], int] = defaultdict(int)

    async def sandboxes(self) -> list[Any]:
        """All sandboxes, as containerd lists them."""
        answer = await self._runtime.ListPodSandbox(cri.ListPodSandboxRequest(), timeout=_SECONDS)
        return list(answer.items)

    async def containers(self) -> list[Any]:
        """All containers, as containerd lists them."""
        answer = await self._runtime.ListContainers(cri.ListContainersRequest(), timeout=_SECONDS)
        return list(answer.containers)

    async def running(self) -> set[tuple[str, str]]:
        """The names of the pods and containers that run."""
        names = {one.id: one.metadata.name for one in await self.sandboxes()}
        return {
            (names[one.pod_sandbox_id], one.metadata.name)
            for one in await self.containers()
            if one.state == cri.CONTAINER_RUNNING and one.pod_sandbox_id in names
        }

    async def process(self, container: str) -> int:
        """The process ID of a running container."""
        answer = await self._runtime.ContainerStatus(
            cri.ContainerStatusRequest(container_id=container, verbose=True), timeout=_SECONDS
        )
        return int(pods.info_of(answer)["pid"])

    async def start(self, pod: Pod) -> None:
        """Creates and starts what does not run of a pod."""
        wanted = pod.created()
        sandbox, config = await self._sandbox(pod, wanted)
        there = [one for one in await self.containers() if one.pod_sandbox_id == sandbox]
        for container in wanted["containers"]:
            same = [one for one in there if one.metadata.name == container["name"]]
            if any(one.state == cri.CONTAINER_RUNNING for one in same):
                continue
            await self._remove_containers(same)
            attempt = self._attempt(pod, container["name"], same)
            created = await self._node.create(sandbox, config, container, attempt=attempt)
            await self._node.start(created, container)
            link(pod.name, container["name"], created)

    async def remove(self, uid: str) -> None:
        """Ends the containers of a pod, and removes all that is left of it."""
        sandboxes = [one for one in await self.sandboxes() if one.metadata.uid == uid]
        for sandbox in sandboxes:
            await self._remove_sandbox(sandbox.id)
        await asyncio.to_thread(stop_slice, uid)

    async def remove_what_does_not_run(self) -> None:
        """Removes containers that were created and never started, or have ended."""
        everything = await self.containers()
        await self._remove_containers(
            one for one in everything if one.state != cri.CONTAINER_RUNNING
        )

    async def collect_garbage(self, uids: Collection[str]) -> None:
        """Removes the containers of the pods with these UIDs that do not run."""
        sandboxes = {one.id for one in await self.sandboxes() if one.metadata.uid in uids}
        await self._remove_containers(
            one
            for one in await self.containers()
            if one.state != cri.CONTAINER_RUNNING and one.pod_sandbox_id in sandboxes
        )

    async def _sandbox(self, pod: Pod, wanted: pods.Json) -> tuple[str, Any]:
        """The id of the pod's running sandbox, and its configuration."""
        there = [one for one in await self.sandboxes() if one.metadata.uid == pod.uid]
        ready = [one for one in there if one.state == cri.SANDBOX_READY]
        for one in there:
            if one not in ready[:1]:
                await self._remove_sandbox(one.id)
        if ready:
            attempt = ready[0].metadata.attempt
            return ready[0].id, pods.sandbox_config(wanted, pod.uid, attempt)
        attempt = self._attempt(pod, "", there)
        config = pods.sandbox_config(wanted, pod.uid, attempt)
        if not slice_of(pod.uid).exists():
            await asyncio.to_thread(pods.make_slice, config.linux.cgroup_parent, wanted["quota"])
        Path(config.log_directory).mkdir(parents=True, exist_ok=True)
        answer = await self._runtime.RunPodSandbox(
            cri.RunPodSandboxRequest(config=config), timeout=_SECONDS
        )
        return answer.pod_sandbox_id, config

    async def _remove_sandbox(self, sandbox: str) -> None:
        containers = [one for one in await self.containers() if one.pod_sandbox_id == sandbox]
        for one in containers:
            if one.state == cri.CONTAINER_RUNNING:
                await self._runtime.StopContainer(
                    cri.StopContainerRequest(container_id=one.id), timeout=_SECONDS
                )
        await self._remove_containers(containers)
        await self._runtime.StopPodSandbox(
            cri.StopPodSandboxRequest(pod_sandbox_id=sandbox), timeout=_SECONDS
        )
        await self._runtime.RemovePodSandbox(
            cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox), timeout=_SECONDS
        )

    async def _remove_containers(self, containers: Iterable[Any]) -> None:
        for one in containers:
            kill_left_over(one.id)
            await self._runtime.RemoveContainer(
                cri.RemoveContainerRequest(container_id=one.id), timeout=_SECONDS
            )
            unlink(one.id)

    def _attempt(self, pod: Pod, container: str, there: Iterable[Any]) -> int:
        """A number that no sandbox or container of this name has had, as far as is known."""
        key = (pod.name, container)
        before = [one.metadata.attempt for one in there]
        self._attempts[key] = max([self._attempts[key], *before]) + 1
        return self._attempts[key]


def link(pod: str, container: str, created: str) -> None:
    """Creates the link to a container's log by which programs find its name."""
    LINKS.mkdir(parents=True, exist_ok=True)
    path = LINKS / f"{pod}_default_{container}-{created}.log"
    with contextlib.suppress(FileExistsError):
        path.symlink_to(f"{pods.LOGS}/{pod}/{container}.log")


def unlink(container: str) -> None:
    for path in LINKS.glob(f"*-{container}.log"):
        path.unlink(missing_ok=True)


def slice_of(uid: str) -> Path:
    """The cgroup of a pod."""
    name = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    return pods.CGROUPS / "kubepods.slice" / "kubepods-burstable.slice" / name


def stop_slice(uid: str) -> None:
    """Removes the cgroup of a pod through systemd, as the kubelet does."""
    if slice_of(uid).exists():
        subprocess.run(
            ["systemctl", "stop", slice_of(uid).name], stderr=subprocess.DEVNULL, check=False
        )


def kill_left_over(container: str) -> None:
    """Ends the processes of a container that does not run, as far as the runtime knows.

    A runtime that is killed while it starts a container may list it as created, also when it runs,
    and then cannot remove it. A real kubelet ends such processes with the cgroup of their pod.
    """
    for cgroup in pods.CGROUPS.glob(f"kubepods.slice/*/*/cri-containerd-{container}.scope"):
        with contextlib.suppress(OSError):  # it has just gone
            if (cgroup / "cgroup.procs").read_text():
                log.info("ending the processes in %s", cgroup.name)
                (cgroup / "cgroup.kill").write_text("1")


def node_name() -> str:
    return os.uname().nodename.lower()
