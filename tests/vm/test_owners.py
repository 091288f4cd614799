"""Owners of CPUs on a real container runtime, and what follows for the others on the host.

CPU quotas of pods, sandboxes, CPUs with two owners, and CPUs that are given back to others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from isolcpus_dp.nri.notes import ATTRIBUTE
from isolcpus_dp.service.events import Event
from tests.packages.build import as_made

from . import pinning, runtime
from .extent import in_full_run
from .guest import Guest
from .node import messages
from .pinning import EXPECTED, GUARANTEED, OWNER, PIN, PLAIN, mixed_pod, quota, throttled
from .recipe import FORKY, TRIXIE, Recipe
from .runtime import Container, Pod, Running, Runtime, assert_cpus, wait_for_cpus

DROP_IN = "/etc/isolcpus-dp/isolcpus-dp.conf.d/test.conf"

on_both = pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(TRIXIE, id="trixie-containerd-1.7", marks=in_full_run),
        pytest.param(FORKY, id="forky-containerd-2.1"),
    ],
    indirect=True,
)
on_forky = pytest.mark.parametrize("recipe", [FORKY], ids=["forky-containerd-2.1"], indirect=True)


@pytest.fixture(scope="module")
def recipe(request: pytest.FixtureRequest) -> Recipe:
    chosen: Recipe = request.param
    return chosen


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return [*as_made(), *runtime.files(tmp_path_factory.mktemp("runtime"))]


@pytest.fixture(scope="module")
def containerd(guest: Guest) -> Runtime:
    started = Runtime(guest)
    started.start()
    pinning.install(guest)
    return started


def quotas_noted(guest: Guest, cgroup: str) -> str:
    """Returns the note on the cgroup of a pod; empty if there is none."""
    program = "import os, sys; print(os.getxattr(sys.argv[1], sys.argv[2]).decode())"
    return guest.run(f"python3 -c '{program}' {cgroup} {ATTRIBUTE}", check=False).stdout


def sandbox_of(guest: Guest, containers: dict[str, Running]) -> Running:
    """Returns the sandbox of a pod, as if it were a container."""
    pod = next(iter(containers.values())).pod_cgroup
    known = {container.cgroup for container in containers.values()}
    groups = guest.run(f"ls -d {pod}/cri-containerd-*").stdout.split()
    [cgroup] = [group for group in groups if group not in known]
    pid = int(guest.run(f"cat {cgroup}/cgroup.procs").stdout)
    return Running("sandbox", "", pid, cgroup, "", "")


@on_both
def test_sandbox_stays_off_the_isolated_cpus(guest: Guest, containerd: Runtime) -> None:
    containers = containerd.run(Pod("small", [PLAIN]))
    sandbox = {"sandbox": sandbox_of(guest, containers)}
    assert_cpus(guest, sandbox, {"sandbox": "0-1,4-5"})
    # systemd may write it when it is reloaded.
    guest.run(f"echo 0-7 > {sandbox['sandbox'].cgroup}/cpuset.cpus")
    wait_for_cpus(guest, sandbox, {"sandbox": "0-1,4-5"})
    guest.run("systemctl daemon-reload")
    wait_for_cpus(guest, sandbox, {"sandbox": "0-1,4-5"})
    containerd.remove(containers)


@on_both
def test_limit_of_a_pod_holds_for_others_and_is_restored(guest: Guest, containerd: Runtime) -> None:
    # As an init container does, the owner ends by itself.
    containers = containerd.run(Pod("limited", [OWNER, Container("busy", threads=1)], quota=10_000))
    owner, busy = containers["owner"], containers["busy"]
    pod = owner.pod_cgroup
    # systemd writes the limit again when a container of the pod starts.
    guest.wait_until(f"grep '^max ' {pod}/cpu.max && grep '^10000 ' {busy.cgroup}/cpu.max")
    guest.wait_until(f"grep 'nr_throttled [1-9]' {busy.cgroup}/cpu.stat")
    assert quotas_noted(guest, pod).splitlines() == [
        "pod 10000 100000",
        f"{busy.id} -1 100000 10000",
    ]
    # The kubelet resizes the pod.
    guest.run(f"systemctl set-property --runtime {Path(pod).name} CPUQuota=20%")
    guest.wait_until(f"grep '^20000 ' {busy.cgroup}/cpu.max && grep '^max ' {pod}/cpu.max")

    guest.run(f"kill -KILL {owner.pid}")
    guest.wait_until(f"grep '^20000 ' {pod}/cpu.max && grep '^max ' {busy.cgroup}/cpu.max")
    guest.wait_until(f"grep 'nr_throttled [1-9]' {pod}/cpu.stat")
    assert [entry["POD"] for entry in messages(guest, Event.QUOTA_RESTORED)] == ["default/limited"]
    assert quotas_noted(guest, pod) == ""
    containerd.remove(containers)


@on_both
def test_limit_is_restored_if_the_owner_ended_unseen(guest: Guest, containerd: Runtime) -> None:
    containers = containerd.run(Pod("unseen", [OWNER, PLAIN], quota=10_000))
    owner, plain = containers["owner"], containers["plain"]
    guest.wait_until(f"grep '^max ' {owner.pod_cgroup}/cpu.max")
    guest.run(f"systemctl stop {PIN} && kill -KILL {owner.pid} && systemctl start {PIN}")
    guest.wait_until(
        f"grep '^10000 ' {owner.pod_cgroup}/cpu.max && grep '^max ' {plain.cgroup}/cpu.max"
    )
    assert quotas_noted(guest, owner.pod_cgroup) == ""
    containerd.remove(containers)


@on_both
def test_cpu_limits_do_not_throttle_an_owner(guest: Guest, containerd: Runtime) -> None:
    pod = Pod(
        "quick",
        [
            Container("quick", devices=("6", "7"), quota=5_000, threads=1),
            Container("sidecar", quota=5_000, threads=1),
        ],
        quota=10_000,
    )
    containers = containerd.run(pod)
    quick, sidecar = containers["quick"], containers["sidecar"]
    # systemd writes the limit again when a container of the pod starts.
    guest.wait_until(f"grep '^max ' {quick.pod_cgroup}/cpu.max")
    before = throttled(guest, quick.pod_cgroup)
    guest.wait_until(
        f"test $(sed -n 's/^usage_usec //p' {quick.cgroup}/cpu.stat) -gt 5000000", timeout=180
    )
    assert throttled(guest, quick.cgroup) == 0
    assert throttled(guest, quick.pod_cgroup) == before
    assert throttled(guest, sidecar.cgroup) > 0

    assert quota(guest, quick.cgroup) == "max 100000"
    assert quota(guest, quick.pod_cgroup) == "max 100000"
    assert quota(guest, sidecar.cgroup) == "5000 100000"

    guest.run("systemctl daemon-reload")  # systemd applies the limit again
    guest.wait_until(f"grep '^max ' {quick.pod_cgroup}/cpu.max")
    containerd.remove(containers)


@on_both
def test_cpu_with_two_owners_is_reported_and_none_is_moved(
    guest: Guest, containerd: Runtime
) -> None:
    one = containerd.run(Pod("one", [Container("first", devices=("6", "7"))]))
    two = containerd.run(Pod("two", [Container("second", devices=("7",))]))
    [reported] = messages(guest, Event.OWNED_TWICE)
    assert reported["CPU"] == "7"
    assert (reported["POD"], reported["CONTAINER"]) == ("default/two", "second")
    assert (reported["OTHER_POD"], reported["OTHER_CONTAINER"]) == ("default/one", "first")
    assert_cpus(guest, {**one, **two}, {"first": "6-7", "second": "7"})
    containerd.remove({**one, **two})


@on_both
def test_others_get_the_isolated_cpus_back(guest: Guest, containerd: Runtime) -> None:
    containers = containerd.run(Pod("mixed", [OWNER, PLAIN, GUARANTEED]))
    kept_off = {"owner": "2-3", "plain": "0-1,4-5", "guaranteed": "0-1"}
    returned = {"owner": "2-3", "plain": "0-7", "guaranteed": "0-3"}
    assert_cpus(guest, containers, kept_off)
    # A daemon that is started later knows the earlier CPUs from the containers' annotations.
    for verb in ("reload", "restart"):
        guest.run(f"printf '[Pinning]\\nKeepOthersOff=no\\n' > {DROP_IN}; systemctl {verb} {PIN}")
        wait_for_cpus(guest, containers, returned)
        guest.run(f"rm {DROP_IN}; systemctl reload {PIN}")
        wait_for_cpus(guest, containers, kept_off)
    containerd.remove(containers)


# containerd 1.7.24 may create a container between two connections without asking either.
@on_forky
def test_containers_are_pinned_while_cpus_go_offline_and_come_back(
    guest: Guest, containerd: Runtime
) -> None:
    before = len(messages(guest, Event.CPUS_CHANGED))
    online = "/sys/devices/system/cpu/cpu7/online"
    switch = f"echo 1 > {online}"
    # None is started: the daemon would update it, and then containerd may hang (issue 13733).
    seen = containerd.churn_meanwhile(
        60,
        mixed_pod("crowd"),
        f"echo 0 > {online}; sleep 1; {{ {switch} || {switch}; }}; sleep 1",
    )
    assert len(messages(guest, Event.CPUS_CHANGED)) >= before + 2
    # Without a daemon, the runtime would create them with all CPUs.
    assert len(seen) == 60
    assert {(found["name"], found["planned"]) for found in seen} == set(EXPECTED.items())


@on_both
def test_journal_has_no_failure(guest: Guest, containerd: Runtime) -> None:
    for event in (Event.DEGRADED, Event.UNDECIDED, Event.QUOTA_KEPT, Event.NOT_PINNED):
        assert [entry["MESSAGE"] for entry in messages(guest, event)] == []
    assert "Traceback" not in guest.journal(PIN)
