"""Acts as the kubelet in the guest: allocates devices and creates containers.

Runs in the guest with Debian's grpcio, the API of the installed package, and the modules that
protoc generated from cri.proto. Its argument is a pod as JSON; prints its containers as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cri_pb2 as cri
import grpc
from cri_pb2_grpc import RuntimeServiceStub

from isolcpus_dp.api import deviceplugin_pb2 as deviceplugin
from isolcpus_dp.api.deviceplugin_pb2_grpc import DevicePluginStub

PLUGIN = "unix:/var/lib/kubelet/device-plugins/windriver.com-isolcpus.sock"
RUNTIME = "unix:/run/containerd/containerd.sock"
CGROUPS = Path("/sys/fs/cgroup")
LOGS = "/var/log/pods"

AT_ONCE = 8
# Starting a container is the slowest step on emulated CPUs, so only every ninth one is started.
# With 9, which shares no factor with the 4 kinds of container, all kinds are started in turn.
START_EVERY = 9
PERIOD = 100_000  # µs, as in the kubelet

SLOW = re.compile("deadline|timed? ?out|start shim", re.IGNORECASE)

Json = dict[str, Any]
Made = TypeVar("Made")
# The plugin's answer for a container of a pod of this name.
Allocate = Callable[[str, Json], Awaitable[deviceplugin.ContainerAllocateResponse]]


class Node:
    """The part of a kubelet that concerns the CPUs of containers.

    `allocate` returns what the device plugin answers for a container of a pod.
    """

    def __init__(self, allocate: Allocate, runtime: grpc.aio.Channel, image: str) -> None:
        self._allocate = allocate
        self._runtime = RuntimeServiceStub(runtime)
        self._image = image

    async def run(self, pod: Json) -> list[Json]:
        """Starts all containers of the pod. Returns them in the pod's order."""
        sandbox, config = await self._sandbox(pod)
        return [
            await retry_if_slow(partial(self._run, sandbox, config, container))
            for container in pod["containers"]
        ]

    async def _run(self, sandbox: str, config: cri.PodSandboxConfig, container: Json) -> Json:
        created = await self.create(sandbox, config, container)
        try:
            return await self.start(created, container)
        except grpc.aio.AioRpcError:
            await self.remove(created)  # the retry uses the same name
            raise

    async def run_while_it_dies(self, pod: Json, pid: int) -> list[Json]:
        """Like `run`, but kills a process while the runtime waits for its answer."""
        sandbox, config = await self._sandbox(pod)
        os.kill(pid, signal.SIGSTOP)
        creations = [
            asyncio.create_task(self.create(sandbox, config, container))
            for container in pod["containers"]
        ]
        # Nothing shows that the request was sent: allow 1 s. The runtime waits 30 s for an answer.
        await asyncio.sleep(1)
        if any(creation.done() for creation in creations):
            raise SystemExit(f"process {pid} was not asked: a container is there already")
        os.kill(pid, signal.SIGKILL)
        return [
            await self.start(await creation, container)
            for creation, container in zip(creations, pod["containers"])
        ]

    async def churn(self, pod: Json, count: int, *, starts: bool) -> list[Json]:
        """Creates and removes `count` containers of the pod; with `starts`, starts some of them."""
        sandbox, config = await self._sandbox(pod)
        numbers = iter(range(count))
        seen: list[Json] = []

        async def work() -> None:
            for number in numbers:
                container = pod["containers"][number % len(pod["containers"])]
                created = await self.create(sandbox, config, container, suffix=f"-{number}")
                info = await self._info(created)
                planned = info["runtimeSpec"]["linux"]["resources"]["cpu"]["cpus"]
                start = starts and number % START_EVERY == 0
                found = {"name": container["name"], "planned": planned, "start": start}
                if start:
                    # Emulated CPUs may be too slow for so many at once. containerd then fails in
                    # various ways, and a kubelet would create another container.
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        found = {**found, **await self.start(created, container)}
                seen.append(found)
                await self.remove(created)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return seen

    async def update(self, container: str, cpus: str) -> None:
        """Sets the cpuset of a container, as the kubelet's CPU manager does."""
        await self._runtime.UpdateContainerResources(
            cri.UpdateContainerResourcesRequest(
                container_id=container, linux=cri.LinuxContainerResources(cpuset_cpus=cpus)
            )
        )

    async def remove(self, container: str) -> None:
        """Removes a container, running or not. Retries like the kubelet if containerd refuses."""
        for attempt in range(60):
            try:
                await self._runtime.RemoveContainer(
                    cri.RemoveContainerRequest(container_id=container)
                )
            except grpc.aio.AioRpcError:
                if attempt == 59:
                    raise
                await asyncio.sleep(1)
            else:
                return

    async def _sandbox(self, pod: Json) -> tuple[str, cri.PodSandboxConfig]:
        return await retry_if_slow(partial(self._make_sandbox, pod))

    async def _make_sandbox(self, pod: Json) -> tuple[str, cri.PodSandboxConfig]:
        config = sandbox_config(pod, str(uuid.uuid4()))
        make_slice(config.linux.cgroup_parent, pod["quota"])
        Path(config.log_directory).mkdir(parents=True, exist_ok=True)
        answer = await self._runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config))
        return answer.pod_sandbox_id, config

    async def create(
        self,
        sandbox: str,
        config: cri.PodSandboxConfig,
        container: Json,
        suffix: str = "",
        attempt: int = 0,
    ) -> str:
        """Creates a container of a pod; `attempt` differs from that of an earlier one."""
        allocated = await self._allocate(config.metadata.name, container)
        envs = {**container["environment"], **allocated.envs}
        name = container["name"] + suffix
        request = cri.CreateContainerRequest(
            pod_sandbox_id=sandbox,
            config=cri.ContainerConfig(
                metadata=cri.ContainerMetadata(name=name, attempt=attempt),
                image=cri.ImageSpec(image=self._image),
                command=["/workload", str(container["threads"])],
                envs=[cri.KeyValue(key=key, value=value) for key, value in envs.items()],
                annotations=allocated.annotations,
                log_path=f"{name}.log",
                linux=cri.LinuxContainerConfig(
                    resources=cri.LinuxContainerResources(
                        cpu_period=PERIOD,
                        cpu_quota=container["quota"],
                        cpu_shares=102,
                        cpuset_cpus=container["cpus"],
                    )
                ),
            ),
            sandbox_config=config,
        )
        created: str = (await self._runtime.CreateContainer(request)).container_id
        return created

    async def start(self, created: str, container: Json) -> Json:
        """Starts a container. Returns its process, its cgroup and the CPUs that it starts with."""
        await self._runtime.StartContainer(cri.StartContainerRequest(container_id=created))
        pid = (await self._info(created))["pid"]
        cgroup = cgroup_of(pid)
        return {
            "name": container["name"],
            "id": created,
            "pid": pid,
            "cgroup": str(cgroup),
            "allowed": allowed(pid),
            "cpuset": read_cpuset(cgroup),
        }

    async def _info(self, container: str) -> Json:
        """Returns the verbose status of a container, which is specific to containerd."""
        status = await self._runtime.ContainerStatus(
            cri.ContainerStatusRequest(container_id=container, verbose=True)
        )
        return info_of(status)


class Plugin:
    """The device plugin, called for devices that are named beforehand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = DevicePluginStub(channel)

    async def allocate(self, _pod: str, container: Json) -> deviceplugin.ContainerAllocateResponse:
        """The plugin's answer for the devices of a container."""
        if not container["devices"]:
            return deviceplugin.ContainerAllocateResponse()
        wanted = deviceplugin.ContainerAllocateRequest(devices_ids=container["devices"])
        answer = await self._stub.Allocate(
            deviceplugin.AllocateRequest(container_requests=[wanted])
        )
        return answer.container_responses[0]


def sandbox_config(pod: Json, uid: str, attempt: int = 0) -> cri.PodSandboxConfig:
    """The sandbox of a pod; `attempt` differs from that of an earlier one."""
    return cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(
            name=pod["name"], uid=uid, namespace="default", attempt=attempt
        ),
        log_directory=f"{LOGS}/{pod['name']}",
        dns_config=cri.DNSConfig(servers=["127.0.0.1"]),
        annotations=pod["annotations"],
        linux=cri.LinuxPodSandboxConfig(
            cgroup_parent=f"kubepods-burstable-pod{uid.replace('-', '_')}.slice",
            security_context=cri.LinuxSandboxSecurityContext(
                namespace_options=cri.NamespaceOption(network=cri.NODE)
            ),
        ),
    )


def info_of(status: cri.ContainerStatusResponse) -> Json:
    """What is specific to containerd in the verbose status of a container, such as its `pid`."""
    info: Json = json.loads(status.info["info"])
    return info


async def retry_if_slow(make: Callable[[], Awaitable[Made]]) -> Made:
    """Retries twice when containerd missed its own deadline, as it may on emulated CPUs."""
    for _ in range(2):
        try:
            return await make()
        except grpc.aio.AioRpcError as error:
            if not SLOW.search(error.details() or ""):
                raise
    return await make()


def make_slice(name: str, quota: int) -> None:
    """Creates the pod's cgroup through systemd, as the kubelet does. A `quota` of 0 is no limit."""
    properties = ["DefaultDependencies", "b", "false"]
    if quota:
        properties += ["CPUQuotaPerSecUSec", "t", str(quota * 1_000_000 // PERIOD)]
    bus = ["busctl", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"]
    start = ["org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"]
    subprocess.run(
        [*bus, *start, name, "replace", str(len(properties) // 3), *properties, "0"],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def cgroup_of(pid: int) -> Path:
    """The directory of a process's cgroup."""
    return CGROUPS / Path(f"/proc/{pid}/cgroup").read_text().strip().partition("::/")[2]


def allowed(pid: int) -> str:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(
        line.split()[1] for line in status.splitlines() if line.startswith("Cpus_allowed_list:")
    )


def read_cpuset(cgroup: Path) -> str:
    """Returns an empty string if no cpuset is set."""
    cpuset = cgroup / "cpuset.cpus"
    return cpuset.read_text().strip() if cpuset.exists() else ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("pod", type=json.loads)
    dying = verbs.add_parser("run-while-it-dies")
    dying.add_argument("pod", type=json.loads)
    dying.add_argument("pid", type=int)
    churn = verbs.add_parser("churn")
    churn.add_argument("pod", type=json.loads)
    churn.add_argument("count", type=int)
    churn.add_argument("--start", action="store_true")
    update = verbs.add_parser("update")
    update.add_argument("cpus")
    update.add_argument("containers", nargs="+")
    remove = verbs.add_parser("remove")
    remove.add_argument("containers", nargs="+")
    return parser.parse_args()


async def main() -> None:
    options = arguments()
    async with (
        grpc.aio.insecure_channel(PLUGIN) as plugin,
        grpc.aio.insecure_channel(RUNTIME) as runtime,
    ):
        node = Node(Plugin(plugin).allocate, runtime, options.image)
        if options.verb == "run":
            print(json.dumps(await node.run(options.pod)))
        elif options.verb == "run-while-it-dies":
            print(json.dumps(await node.run_while_it_dies(options.pod, options.pid)))
        elif options.verb == "churn":
            print(json.dumps(await node.churn(options.pod, options.count, starts=options.start)))
        elif options.verb == "update":
            for container in options.containers:
                await node.update(container, options.cpus)
        else:
            for container in options.containers:
                await node.remove(container)


if __name__ == "__main__":
    asyncio.run(main())
