"""The pinning daemon as a process, and a container runtime over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp import config
from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import machine
from isolcpus_dp.nri import daemon as pin_daemon
from isolcpus_dp.simulator.machine import MadeUpMachine, regular
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.runtime import Runtime

from .conftest import RESOURCE, until

OWNER = {RESOURCE: "2-3"}


class Host:
    """A host in a folder: 2 NUMA nodes of 4 CPUs, of which 2-3 and 6-7 are isolated."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = MadeUpMachine(folder / "sys", regular(2, 4, 1), {2, 3, 6, 7})
        self.socket = folder / "nri" / "nri.sock"

    @property
    def log(self) -> str:
        log = self.folder / "log"
        return log.read_text() if log.exists() else ""

    def daemon(self, configuration: str = "") -> Supervisor:
        file = self.folder / "isolcpus-dp.conf"
        file.write_text(configuration)
        command: list[str | Path] = [sys.executable, "-m", "isolcpus_dp", "pin"]
        command += ["--sysfs", self.machine.root, "--nri-socket", self.socket, "--config", file]
        environment = {name: text for name, text in os.environ.items() if name != "JOURNAL_STREAM"}
        return Supervisor(command, self.folder, environment)

    def cgroup_file(self, name: str, text: str) -> Path:
        """A file of the kernel's, below /sys/fs/cgroup."""
        file = self.machine.root / "fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file


@pytest.fixture
def host() -> Iterator[Host]:
    # Not tmp_path, whose names are longer than the path of a socket may be.
    with tempfile.TemporaryDirectory() as name:
        yield Host(Path(name))


StartRuntime = Callable[..., Awaitable[Runtime]]


@pytest.fixture
async def start_runtime(host: Host) -> AsyncIterator[StartRuntime]:
    """Starts runtimes, one after another; all containers outlive a runtime."""
    pods: dict[str, api.PodSandbox] = {}
    containers: dict[str, api.Container] = {}
    running = []

    async def start(kind: type[Runtime] = Runtime, **more: Any) -> Runtime:
        # Longer than containerd's 2 s, which a busy machine may miss: bench/ measures.
        running.append(kind(host.socket, pods, containers, request_seconds=20, **more))
        await running[-1].start()
        return running[-1]

    yield start
    for runtime in running:
        await runtime.stop()


def cpus(container: api.Container) -> str:
    return container.linux.resources.cpu.cpus


def quota(container: api.Container) -> int:
    return container.linux.resources.cpu.quota.value


async def test_owner_is_pinned_and_everyone_else_kept_off(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon().running() as daemon:
        await runtime.until_connected()
        pod = runtime.run_pod("a")
        assert cpus(await runtime.create(pod, "owner", OWNER)) == "2-3"
        assert cpus(await runtime.create(pod, "plain")) == "0-1,4-5"
        assert cpus(await runtime.create(pod, "guaranteed", cpus="0-3")) == "0-1"
        assert cpus(await runtime.create(pod, "elsewhere", cpus="4")) == "4"
        await daemon.until(
            lambda run: run.status == "Connected to simulated 1, isolated CPU 2-3,6-7"
        )
        assert "container owner of pod default/a owns CPU 2-3" in host.log
        [registration] = runtime.registered
        assert (registration.plugin_name, registration.plugin_idx) == ("isolcpus-dp", "10")


async def test_environment_and_the_pods_annotations_are_never_trusted(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon().running():
        await runtime.until_connected()
        pod = runtime.run_pod("forger")
        pod.annotations[RESOURCE] = "2-3"
        pod.labels[RESOURCE] = "2-3"
        forged = await runtime.create(pod, env=("ISOLCPUS=2-3", f"{RESOURCE}=2-3"))
        assert cpus(forged) == "0-1,4-5"


async def test_annotation_of_crio_counts_for_nothing_elsewhere(
    host: Host, start_runtime: StartRuntime
) -> None:
    """containerd passes on what its patterns in pod_annotations match, maybe io.*."""
    runtime = await start_runtime(name="containerd")
    async with host.daemon().running():
        await runtime.until_connected()
        forged = {"io.kubernetes.cri-o.Annotations": json.dumps(OWNER)}
        assert cpus(await runtime.create(runtime.run_pod("a"), "forger", forged)) == "0-1,4-5"


async def test_crio_mixes_the_pods_annotations_in_and_only_the_kubelets_are_trusted(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime(name="cri-o")
    async with host.daemon().running():
        await runtime.until_connected()
        pod = runtime.run_pod("a")
        kubelets = "io.kubernetes.cri-o.Annotations"
        real = {kubelets: json.dumps(OWNER), **OWNER}
        assert cpus(await runtime.create(pod, "owner", real)) == "2-3"
        # What a pod's author has written stands beside it.
        assert cpus(await runtime.create(pod, "forger", {kubelets: "{}", **OWNER})) == "0-1,4-5"
        assert cpus(await runtime.create(pod, "plain", {kubelets: "null"})) == "0-1,4-5"
        assert cpus(await runtime.create(pod, "odd", OWNER)) == "0-1,4-5"
        assert "no decision" not in host.log


async def test_annotation_outside_the_pool_is_told_with_pod_and_reason(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon().running():
        await runtime.until_connected()
        pod = runtime.run_pod("odd")
        assert cpus(await runtime.create(pod, annotations={RESOURCE: "0-3"})) == "0-1,4-5"
        assert (
            f"container main of pod default/odd: annotation {RESOURCE}: 0-3:"
            " CPU 0-1 is not in the pool, which is 2-3,6-7"
        ) in host.log


async def test_containers_from_before_are_put_right_when_the_daemon_starts(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime(chunk=3)
    pod = runtime.run_pod("before")
    plain = [await runtime.create(pod, f"plain-{number}") for number in range(10)]
    owner = await runtime.create(pod, "owner", OWNER)
    wide = await runtime.create(pod, "wide", cpus="0-7")
    ended = await runtime.create(pod, "ended")
    ended.state = api.CONTAINER_STOPPED
    async with host.daemon().running():
        await runtime.until_connected()
        assert [cpus(one) for one in plain] == ["0-1,4-5"] * 10
        assert (cpus(owner), cpus(wide), cpus(ended)) == ("2-3", "0-1,4-5", "")
        assert "simulated 1 has 13 containers: updating 12" in host.log


async def test_container_that_starts_while_the_daemon_does_is_put_right(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    pod = runtime.run_pod("starting")
    owner = await runtime.create(pod, "owner", OWNER, starts=False)
    plain = await runtime.create(pod, "plain", starts=False)
    async with host.daemon().running():
        await runtime.until_connected()
        assert runtime.outdated == {owner.id, plain.id}
        for container in (owner, plain):
            await runtime.start_container(container)
        await until(lambda: not runtime.outdated)
        assert (cpus(owner), cpus(plain)) == ("2-3", "0-1,4-5")


async def test_container_that_was_not_put_right_is_tried_again_though_the_runtime_says_it_is(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    pod = runtime.run_pod("starting")
    limited = api.OptionalInt64(value=10_000)
    owner = await runtime.create(pod, "owner", OWNER, starts=False, quota=limited)
    plain = await runtime.create(pod, "plain", starts=False)
    runtime.unchangeable = {owner.id, plain.id}
    async with host.daemon().running():
        await runtime.until_connected()
        for container in (owner, plain):
            await runtime.start_container(container)
        await until(lambda: host.log.count("could not update") == 2)
        on_paper = (cpus(owner), quota(owner), cpus(plain))
        assert on_paper == ("2-3", -1, "0-1,4-5")

        runtime.unchangeable.clear()
        host.machine.set_offline(4)  # it connects anew, and cgroup v1 takes no offline CPU
        await until(lambda: not runtime.outdated)
        assert (cpus(owner), quota(owner)) == ("2-3", -1)
        assert host.log.count("2 containers: updating 2") == 2
        # That went well: there is no more to do.
        host.machine.set_online(4)
        await until(lambda: "2 containers: updating 0" in host.log)


async def test_offline_cpu_is_not_said_anew_where_no_cpuset_may_name_it(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    plain = await runtime.create(runtime.run_pod("starting"), "plain", starts=False)
    async with host.daemon().running():
        await runtime.until_connected()
        assert cpus(plain) == "0-1,4-5"
        host.machine.set_offline(4)
        await until(lambda: len(runtime.registered) == 2 and runtime.connected)
        await runtime.start_container(plain)
        await until(lambda: not runtime.outdated)
        assert cpus(plain) == "0-1,5"


async def test_container_that_starts_after_the_daemon_was_killed_is_put_right(
    host: Host, start_runtime: StartRuntime
) -> None:
    """The new daemon finds nothing to change: the runtime says what the old one has told it."""
    runtime = await start_runtime()
    plain = await runtime.create(runtime.run_pod("starting"), "plain", starts=False)
    async with host.daemon().running() as daemon:
        await runtime.until_connected()
        assert runtime.outdated == {plain.id}
        os.kill(daemon.current.pid, 9)
        await until(lambda: len(runtime.registered) == 2 and runtime.connected)
        await runtime.start_container(plain)
        await until(lambda: not runtime.outdated)


class GarblingRuntime(Runtime):
    """Its answers to an update cannot be understood."""

    def _answer(self, service: str, method: str, payload: bytes) -> bytes:
        return (
            b"\xff" if method == "UpdateContainers" else super()._answer(service, method, payload)
        )


async def test_update_without_a_proper_answer_is_told_and_costs_no_connection(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime(kind=GarblingRuntime)
    plain = await runtime.create(runtime.run_pod("starting"), "plain", starts=False)
    async with host.daemon().running():
        await runtime.until_connected()
        await runtime.start_container(plain)
        await until(
            lambda: "could not update container plain of pod default/starting: " in host.log
        )
        await asyncio.sleep(0.3)  # a connection that is made anew is so after 0.1 s
        assert len(runtime.registered) == 1


async def test_container_that_the_runtime_was_still_making_is_put_right_when_it_starts(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    pod = runtime.run_pod("starting")
    owner = await runtime.create(pod, "owner", OWNER, starts=False)
    plain = await runtime.create(pod, "plain", starts=False)
    making = {container.id: container for container in (owner, plain)}
    runtime.containers.clear()
    async with host.daemon().running():
        await runtime.until_connected()
        assert "simulated 1 has 0 containers" in host.log
        runtime.containers.update(making)
        for container in (owner, plain):
            await runtime.start_container(container)
        await until(lambda: (cpus(owner), cpus(plain)) == ("2-3", "0-1,4-5"))


async def test_container_that_the_runtime_cannot_change_is_told(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    plain = await runtime.create(runtime.run_pod("starting"), "plain", starts=False)
    runtime.unchangeable.add(plain.id)
    async with host.daemon().running() as daemon:
        await runtime.until_connected()
        await runtime.start_container(plain)
        told = "could not update container plain of pod default/starting: NRI update of some"
        await until(lambda: told in host.log)
        await asyncio.sleep(0.3)  # a connection that is made anew is so after 0.1 s
        assert runtime.outdated == {plain.id}
        assert (len(runtime.registered), len(daemon.runs)) == (1, 1)


async def test_update_that_widens_the_cpuset_is_answered(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon().running():
        await runtime.until_connected()
        pod = runtime.run_pod("a")
        owner = await runtime.create(pod, "owner", OWNER)
        plain = await runtime.create(pod, "plain")
        for container in (owner, plain):
            await runtime.update(container, cpus="0-7")
        assert (cpus(owner), cpus(plain)) == ("2-3", "0-1,4-5")
        # The static CPU manager narrows it: that is its right.
        await runtime.update(plain, cpus="4-5")
        assert cpus(plain) == "4-5"
        # A resize says nothing of the cpuset.
        for container in (owner, plain):
            await runtime.update(container, quota=api.OptionalInt64(value=50_000))
        assert (cpus(owner), quota(owner)) == ("2-3", -1)
        assert (cpus(plain), quota(plain)) == ("4-5", 50_000)


@pytest.mark.parametrize(
    ("parent", "file", "limit", "unlimited"),
    [
        (
            "kubepods-pod1.slice",
            "kubepods.slice/kubepods-pod1.slice/cpu.max",
            "10000 100000\n",
            "max",
        ),
        ("/kubepods/pod1", "kubepods/pod1/cpu.max", "10000 100000\n", "max"),
        (
            "kubepods-pod1.slice",
            "cpu,cpuacct/kubepods.slice/kubepods-pod1.slice/cpu.cfs_quota_us",
            "10000\n",
            "-1",
        ),
        ("/kubepods/pod1", "cpu/kubepods/pod1/cpu.cfs_quota_us", "10000\n", "-1"),
    ],
    ids=["v2, systemd", "v2, cgroupfs", "v1, systemd", "v1, cgroupfs"],
)
async def test_owner_is_not_throttled_and_its_neighbours_are(
    host: Host, start_runtime: StartRuntime, parent: str, file: str, limit: str, unlimited: str
) -> None:
    runtime = await start_runtime()
    quota_file = host.cgroup_file(file, limit)
    async with host.daemon().running():
        await runtime.until_connected()
        pod = runtime.run_pod("limited", cgroup_parent=parent)
        limited = api.OptionalInt64(value=10_000)
        plain = await runtime.create(pod, "plain", quota=limited)
        assert quota_file.read_text() == limit
        owner = await runtime.create(pod, "owner", OWNER, quota=limited)
        assert (quota(plain), quota(owner)) == (10_000, -1)
        assert quota_file.read_text() == unlimited
        assert "lifted the CPU quota of pod default/limited" in host.log
        # The kubelet writes it again when the pod is resized.
        quota_file.write_text(limit)
        await until(lambda: quota_file.read_text() == unlimited)


async def test_quota_is_kept_if_the_administrator_says_so(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    limit = host.cgroup_file("kubepods/pod1/cpu.max", "10000 100000\n")
    async with host.daemon("[Pinning]\nCPUQuota=keep\n").running():
        await runtime.until_connected()
        pod = runtime.run_pod("limited", cgroup_parent="/kubepods/pod1")
        owner = await runtime.create(pod, "owner", OWNER, quota=api.OptionalInt64(value=10_000))
        assert quota(owner) == 10_000
        assert limit.read_text() == "10000 100000\n"


async def test_owner_is_pinned_though_its_pods_quota_is_not_to_be_found(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    limit = host.cgroup_file("kubepods/pod1/cpu.max", "")
    async with host.daemon().running():
        await runtime.until_connected()
        nowhere = runtime.run_pod("nowhere", cgroup_parent="/kubepods/pod2")
        assert cpus(await runtime.create(nowhere, "owner", OWNER)) == "2-3"
        assert (
            "the CPU quota of pod default/nowhere, if it has one, stays: there is no cgroup"
            f" kubepods/pod2 below {host.machine.root}/fs/cgroup"
        ) in host.log
        empty = runtime.run_pod("empty", cgroup_parent="/kubepods/pod1")
        assert cpus(await runtime.create(empty, "owner", OWNER)) == "2-3"
        assert limit.read_text() == "max"


async def test_local_memory_and_mixed_cpus(host: Host, start_runtime: StartRuntime) -> None:
    runtime = await start_runtime()
    async with host.daemon("[Plugin]\nMixed=yes\n[Pinning]\nMemoryNodes=local\n").running():
        await runtime.until_connected()
        owner = await runtime.create(runtime.run_pod("a"), "owner", {RESOURCE: "6-7"})
        assert cpus(owner) == "0-1,4-7"
        assert owner.linux.resources.cpu.mems == "1"


async def test_daemon_waits_for_a_runtime_and_says_so(
    host: Host, start_runtime: StartRuntime
) -> None:
    async with host.daemon().running() as daemon:
        run = await daemon.until(lambda run: run.ready > 0)
        assert run.status == f"Waiting for a container runtime with NRI at {host.socket}"
        runtime = await start_runtime()
        await runtime.until_connected()
        assert cpus(await runtime.create(runtime.run_pod("a"))) == "0-1,4-5"
        assert len(daemon.runs) == 1


async def test_runtimes_come_and_go_and_nothing_is_lost(
    host: Host, start_runtime: StartRuntime
) -> None:
    async with host.daemon().running() as daemon:
        for number in range(3):
            runtime = await start_runtime()
            await runtime.until_connected()
            assert cpus(await runtime.create(runtime.run_pod(f"pod-{number}"))) == "0-1,4-5"
            await runtime.stop()
            await daemon.until(lambda run: run.status.startswith("Waiting"))
            between = await runtime.create(runtime.run_pod(f"between-{number}"), "owner", OWNER)
            assert cpus(between) == ""
        runtime = await start_runtime()
        await runtime.until_connected()
        assert {cpus(one) for one in runtime.containers.values() if one.name == "owner"} == {"2-3"}
        assert len(daemon.runs) == 1


async def test_socket_without_a_listener_is_waited_out(
    host: Host, start_runtime: StartRuntime
) -> None:
    await (await start_runtime()).stop()
    assert host.socket.is_socket()
    async with host.daemon().running() as daemon:
        await daemon.until(lambda run: run.ready > 0)
        await asyncio.sleep(4.5)  # it is tried again for 4 s
        runtime = await start_runtime()
        await runtime.until_connected()


async def test_removed_folder_of_the_socket_is_waited_for_again(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon().running() as daemon:
        await runtime.until_connected()
        await runtime.stop()
        host.socket.unlink()
        host.socket.parent.rmdir()
        await daemon.until(lambda run: run.status.startswith("Waiting"))
        runtime = await start_runtime()
        await runtime.until_connected()
        assert len(daemon.runs) == 1


def test_used_up_limits_are_one_sentence(host: Host) -> None:
    (host.folder / "nri").mkdir()
    code = (
        "import errno, os, sys; from isolcpus_dp import cli; from isolcpus_dp.host import inotify\n"
        "def fail(flags): raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))\n"
        "inotify._libc.inotify_init1 = fail\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    options = ["--sysfs", host.machine.root, "--nri-socket", host.socket]
    command = [sys.executable, "-c", code, "pin", *map(str, options)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("[Errno 24] Too many open files: see the ")
    assert "Traceback" not in result.stderr


async def test_runtime_that_refuses_is_told_and_its_successor_asked(
    host: Host, start_runtime: StartRuntime
) -> None:
    refusing = await start_runtime(refuses=True)
    async with host.daemon().running() as daemon:
        await until(lambda: "did not take us: external plugins are disabled" in host.log)
        await refusing.stop()
        runtime = await start_runtime()
        await runtime.until_connected()
        assert len(daemon.runs) == 1


async def test_runtimes_that_refuse_are_asked_once_each(
    host: Host, start_runtime: StartRuntime
) -> None:
    first = await start_runtime(refuses=True)
    async with host.daemon().running():
        await until(lambda: first.refused == 1)
        await first.stop()
        second = await start_runtime(refuses=True)
        await until(lambda: second.refused > 0)
        # Told of its socket once more, the daemon sees that it is the one that has refused.
        host.socket.rename(host.socket.with_name("aside"))
        host.socket.with_name("aside").rename(host.socket)
        await asyncio.sleep(1)  # the same one is asked again after 5 s
        assert (first.refused, second.refused) == (1, 1)


async def test_killed_daemon_is_back_and_puts_right_what_it_missed(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon().running() as daemon:
        await runtime.until_connected()
        os.kill(daemon.current.pid, 9)
        await until(lambda: not runtime.connected)
        missed = await runtime.create(runtime.run_pod("missed"))
        assert cpus(missed) == ""
        await runtime.until_connected()
        await until(lambda: cpus(missed) == "0-1,4-5")


@pytest.mark.parametrize(
    ("version", "meanwhile"), [("v1", "0-1,5"), ("v2", "0-1,4-5")], ids=["cgroup v1", "cgroup v2"]
)
async def test_cpus_that_come_and_go_are_followed(
    host: Host, start_runtime: StartRuntime, version: str, meanwhile: str
) -> None:
    """cgroup v1 takes no cpuset that names an offline CPU; in one of v2 the CPU comes back."""
    if version == "v2":
        host.cgroup_file("cgroup.controllers", "cpuset cpu\n")
    runtime = await start_runtime()
    async with host.daemon().running() as daemon:
        await runtime.until_connected()
        pod = runtime.run_pod("a")
        owner = await runtime.create(pod, "owner", OWNER)
        host.machine.set_offline(3, 4)
        await until(lambda: cpus(owner) == "2")
        await runtime.until_connected()
        assert cpus(await runtime.create(pod, "plain")) == meanwhile
        host.machine.set_online(3, 4)
        await until(lambda: cpus(owner) == "2-3")
        assert len(daemon.runs) == 1


async def test_cpu_that_goes_offline_while_the_daemon_connects_counts(
    host: Host, start_runtime: StartRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await start_runtime()
    owner = await runtime.create(runtime.run_pod("a"), "owner", OWNER)
    loop = asyncio.get_running_loop()
    connect, changes = loop.create_unix_connection, iter([host.machine.set_offline])

    async def connect_slowly(*arguments: Any) -> Any:
        for change in changes:
            change(3)
            await asyncio.sleep(0.3)
        return await connect(*arguments)

    monkeypatch.setattr(loop, "create_unix_connection", connect_slowly)
    monkeypatch.setattr("isolcpus_dp.service.process.until_signal", lambda work: work)
    present = machine.read(host.machine.root)
    settings = config.load(None, present.last)
    daemon = asyncio.create_task(
        pin_daemon.live(pin_daemon.Host(host.machine.root, host.socket), settings, present)
    )
    try:
        await until(lambda: cpus(owner) == "2")
    finally:
        daemon.cancel()
        await asyncio.wait({daemon})


async def test_cpu_that_the_kubelets_cgroup_has_lost_is_named_by_no_cpuset(
    host: Host, start_runtime: StartRuntime
) -> None:
    """The kernel gives nothing back in cgroup v1, and refuses a cpuset that its parent has not."""
    kubepods = host.cgroup_file("cpuset/kubepods.slice/cpuset.cpus", "0-7\n")
    runtime = await start_runtime()
    async with host.daemon().running():
        await runtime.until_connected()
        pod = runtime.run_pod("a")
        owner = await runtime.create(pod, "owner", OWNER)
        assert cpus(owner) == "2-3"
        kubepods.write_text("0-2,5-7\n")
        host.machine.set_offline(3, 4)
        await until(lambda: cpus(owner) == "2")
        host.machine.set_online(3, 4)
        await asyncio.sleep(0.5)
        await runtime.until_connected()
        assert cpus(await runtime.create(pod, "plain")) == "0-1,5"
        assert cpus(await runtime.create(pod, "next", OWNER)) == "2"
        assert cpus(owner) == "2"


async def test_bug_in_deciding_keeps_the_container_off_and_names_its_pod(
    host: Host, start_runtime: StartRuntime
) -> None:
    """A cpuset that is no CPU list stands for whatever nobody has thought of."""
    runtime = await start_runtime()
    async with host.daemon().running():
        await runtime.until_connected()
        odd = await runtime.create(runtime.run_pod("odd"), cpus="nonsense")
        assert cpus(odd) == "0-1,4-5"
        assert "internal error while pinning container main of pod default/odd" in host.log


async def test_others_are_left_alone_if_the_administrator_says_so(
    host: Host, start_runtime: StartRuntime
) -> None:
    runtime = await start_runtime()
    async with host.daemon("[Pinning]\nKeepOthersOff=no\n").running():
        await runtime.until_connected()
        pod = runtime.run_pod("a")
        assert cpus(await runtime.create(pod, "plain")) == ""
        assert cpus(await runtime.create(pod, "owner", OWNER)) == "2-3"


def test_nowhere_to_wait_is_one_sentence(host: Host) -> None:
    command = [sys.executable, "-m", "isolcpus_dp", "pin", "--sysfs", str(host.machine.root)]
    command += ["--nri-socket", str(host.folder / "no" / "such" / "nri.sock")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"{host.folder}/no cannot be watched for such: No such file or directory:"
        " --nri-socket must be in a directory whose parent exists"
    )


def test_pinning_loads_no_grpc() -> None:
    loads = "import isolcpus_dp.nri.daemon, sys; print('grpc' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True)
    assert ended.stdout == "False\n"


async def test_daemon_loads_neither_grpc_nor_a_report(
    host: Host, start_runtime: StartRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    runtime = await start_runtime()
    async with host.daemon().running():
        await runtime.until_connected()
    loaded = {line.rpartition("|")[2].strip() for line in host.log.splitlines()}
    assert "isolcpus_dp.nri.daemon" in loaded
    reports = {name for name in loaded if name.startswith("isolcpus_dp.report")}
    assert not loaded & {"grpc", "prometheus_client", "rich", "yaml"} | reports
