"""The CPU quota of containers that own CPUs, and of their pods."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.simulator.supervisor import Supervisor
from tests.testbed.host import Host
from tests.testbed.runtime import Runtime, cpus, quota
from tests.testbed.wait import until

from .conftest import OWNER

LIMITED = api.OptionalInt64(value=10_000)


@pytest.fixture
def limit(host: Host) -> Path:
    """The quota of the cgroup of /kubepods/pod1, which the daemon can note there."""
    file = host.cgroup_file("kubepods/pod1/cpu.max", "10000 100000\n")
    try:
        os.setxattr(file.parent, "user.test", b"")
    except OSError:
        pytest.skip("this file system has no extended attributes; that of cgroups has")
    return file


@pytest.mark.usefixtures("connected")
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
async def test_quota_is_lifted_for_owners_only(
    host: Host, runtime: Runtime, parent: str, file: str, limit: str, unlimited: str
) -> None:
    quota_file = host.cgroup_file(file, limit)
    pod = runtime.run_pod("limited", cgroup_parent=parent)
    plain = await runtime.create(pod, "plain", quota=LIMITED)
    assert quota_file.read_text() == limit
    owner = await runtime.create(pod, "owner", OWNER, quota=LIMITED)
    assert (quota(plain), quota(owner)) == (10_000, -1)
    assert quota_file.read_text() == unlimited
    assert "lifted the CPU quota of pod default/limited" in host.log
    # The kubelet writes it again when the pod is resized.
    with quota_file.open("r+") as opened:  # in one step, as in a cgroup
        opened.write(limit)
    await until(lambda: quota_file.read_text() == unlimited)


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("configuration", ["[Pinning]\nCPUQuota=keep\n"])
async def test_quota_is_kept_with_cpu_quota_keep(host: Host, runtime: Runtime) -> None:
    limit = host.cgroup_file("kubepods/pod1/cpu.max", "10000 100000\n")
    pod = runtime.run_pod("limited", cgroup_parent="/kubepods/pod1")
    owner = await runtime.create(pod, "owner", OWNER, quota=LIMITED)
    assert quota(owner) == 10_000
    assert limit.read_text() == "10000 100000\n"


@pytest.mark.usefixtures("connected")
async def test_owner_is_pinned_if_the_quota_of_its_pod_is_not_found(
    host: Host, runtime: Runtime
) -> None:
    limit = host.cgroup_file("kubepods/pod1/cpu.max", "")
    nowhere = runtime.run_pod("nowhere", cgroup_parent="/kubepods/pod2")
    assert cpus(await runtime.create(nowhere, "owner", OWNER)) == "2-3"
    assert (
        "could not find the cgroup of pod default/nowhere: no"
        f" kubepods/pod2 below {host.machine.root}/fs/cgroup"
    ) in host.log
    empty = runtime.run_pod("empty", cgroup_parent="/kubepods/pod1")
    assert cpus(await runtime.create(empty, "owner", OWNER)) == "2-3"
    assert limit.read_text() == "max"


@pytest.mark.usefixtures("connected")
async def test_quota_is_restored_when_the_owner_has_ended(
    host: Host, runtime: Runtime, limit: Path
) -> None:
    pod = runtime.run_pod("limited", cgroup_parent="/kubepods/pod1")
    owner = await runtime.create(pod, "init", OWNER, quota=LIMITED)
    assert limit.read_text() == "max"
    await runtime.end_container(owner)
    assert limit.read_text() == "10000 100000"
    assert "restored the CPU quota of pod default/limited" in host.log


async def test_quota_is_restored_if_the_owner_ended_while_the_daemon_did_not_run(
    runtime: Runtime, limit: Path, connected: Supervisor
) -> None:
    pod = runtime.run_pod("limited", cgroup_parent="/kubepods/pod1")
    owner = await runtime.create(pod, "init", OWNER, quota=LIMITED)
    os.kill(connected.workers[0].pid, 9)
    await until(lambda: not runtime.connected)
    await runtime.end_container(owner)
    assert limit.read_text() == "max"
    await until(lambda: limit.read_text() == "10000 100000")


async def test_quotas_are_restored_when_the_configuration_says_keep(
    host: Host, runtime: Runtime, limit: Path, connected: Supervisor
) -> None:
    pod = runtime.run_pod("limited", cgroup_parent="/kubepods/pod1")
    owner = await runtime.create(pod, "owner", OWNER, quota=LIMITED)
    assert quota(owner) == -1
    host.configure("[Pinning]\nCPUQuota=keep\n")
    os.kill(connected.workers[0].pid, signal.SIGHUP)
    await until(lambda: quota(owner) == 10_000)
    assert limit.read_text() == "10000 100000"


@pytest.mark.usefixtures("connected")
async def test_limit_of_a_pod_holds_for_its_other_containers(runtime: Runtime, limit: Path) -> None:
    pod = runtime.run_pod("limited", cgroup_parent="/kubepods/pod1")
    await runtime.create(pod, "owner", OWNER, quota=LIMITED)
    others = [await runtime.create(pod, name, quota=LIMITED) for name in ("one", "two")]
    await until(lambda: [quota(other) for other in others] == [5_000, 5_000])
    assert limit.read_text() == "max"
