"""The CPU quotas of a pod and its containers while one of them owns CPUs, and afterwards."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.host import inotify
from tests.testbed.wait import until

from .conftest import MakeUp
from .runtime_calls import OWNER, Calls, quota


@pytest.fixture
async def calls(make_up: MakeUp, tmp_path: Path) -> AsyncIterator[Calls]:
    try:
        os.setxattr(tmp_path, "user.test", b"")
    except OSError:
        pytest.skip("this file system has no extended attributes; that of cgroups has")
    with inotify.Watch() as watch:
        yield Calls(make_up, tmp_path, watch)


@pytest.fixture
def limit(tmp_path: Path) -> Path:
    """The quota of the pod's cgroup: a tenth of a CPU."""
    file = tmp_path / "kubepods/a/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text("10000 100000\n")
    return file


@pytest.fixture
def pod(calls: Calls, limit: Path) -> api.PodSandbox:
    return calls.pod("a")


def test_quota_of_a_pod_is_restored_when_its_owner_has_ended(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owner = calls.create(pod, "init", OWNER, quota=10_000)
    calls.create(pod, "main", quota=10_000)
    assert limit.read_text() == "max"
    calls.end(owner)
    assert limit.read_text() == "10000 100000"


def test_quota_stays_lifted_until_the_last_owner_has_ended(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owners = [calls.create(pod, name, OWNER) for name in ("one", "two")]
    calls.end(owners[0])
    assert limit.read_text() == "max"
    calls.end(owners[1])
    assert limit.read_text() == "10000 100000"


def test_quota_is_restored_if_the_owner_ended_without_the_daemon(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owner = calls.create(pod, "init", OWNER, quota=10_000)
    del calls.containers[owner.id]
    calls.connect()
    assert limit.read_text() == "10000 100000"


def test_quotas_are_restored_when_they_are_to_be_kept(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owner = calls.create(pod, "owner", OWNER, quota=10_000)
    assert quota(owner) == -1
    calls.connect(cpu_quota="keep")
    assert (limit.read_text(), quota(owner)) == ("10000 100000", 10_000)
    assert os.listxattr(limit.parent) == []


def test_pod_without_a_quota_gets_none_when_its_owner_has_ended(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    limit.write_text("max 100000\n")
    calls.end(calls.create(pod, "owner", OWNER))
    assert limit.read_text() == "max 100000\n"


async def test_last_limit_of_the_kubelet_is_restored(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owner = calls.create(pod, "owner", OWNER)
    limit.write_text("20000 100000\n")  # a pod is resized in place
    await until(lambda: limit.read_text() == "max")
    calls.connect()
    calls.end(owner)
    assert limit.read_text() == "20000 100000"


async def test_limit_set_when_no_owner_lives_is_left_alone(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    calls.end(calls.create(pod, "owner", OWNER))
    calls.create(pod, "plain")
    limit.write_text("20000 100000\n")
    for _ in range(10):
        await asyncio.sleep(0.001)  # the event loop would see the change
    calls.connect()
    assert limit.read_text() == "20000 100000\n"


def test_limit_written_between_two_daemons_is_not_overwritten(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owner = calls.create(pod, "owner", OWNER)
    del calls.containers[owner.id]
    limit.write_text("20000 100000\n")
    calls.connect()
    assert limit.read_text() == "20000 100000\n"
    assert "user.isolcpus-dp.quota" not in os.listxattr(limit.parent)


def test_version_1_gets_only_the_time_back(
    calls: Calls, pod: api.PodSandbox, limit: Path, tmp_path: Path
) -> None:
    limit.unlink()
    file = tmp_path / "cpu,cpuacct/kubepods/a/cpu.cfs_quota_us"
    file.parent.mkdir(parents=True)
    file.write_text("10000\n")
    file.with_name("cpu.cfs_period_us").write_text("100000\n")
    owner = calls.create(pod, "owner", OWNER)
    assert file.read_text() == "-1"
    calls.end(owner)
    assert file.read_text() == "10000"


def test_quotas_that_fit_the_limit_are_unchanged(calls: Calls, pod: api.PodSandbox) -> None:
    others = [calls.create(pod, name, quota=4_000) for name in ("one", "two")]
    calls.create(pod, "owner", OWNER, quota=2_000)
    assert [quota(other) for other in others] == [4_000, 4_000]


def test_limit_of_a_pod_holds_for_its_other_containers_together(
    calls: Calls, pod: api.PodSandbox
) -> None:
    """The kubelet gives each container without a limit the limit of the pod (1.34 and newer)."""
    before = calls.create(pod, "before", quota=10_000)
    owner = calls.create(pod, "owner", OWNER, quota=10_000)
    assert quota(before) == 10_000
    after = calls.create(pod, "after", quota=10_000)
    assert (quota(before), quota(after)) == (5_000, 5_000)
    unlimited = calls.create(pod, "unlimited", shares=4)
    assert (quota(before), quota(after), quota(unlimited)) == (2_500, 2_500, 5_000)
    calls.end(unlimited)
    assert (quota(before), quota(after)) == (5_000, 5_000)
    calls.end(owner)
    assert (quota(before), quota(after)) == (10_000, 10_000)


def test_container_without_a_quota_has_none_again_after_the_owner(
    calls: Calls, pod: api.PodSandbox
) -> None:
    other = calls.create(pod, "other")
    owner = calls.create(pod, "owner", OWNER)
    assert quota(other) == 10_000
    calls.connect()
    assert quota(other) == 10_000
    calls.end(owner)
    assert quota(other) == -1


def test_divided_quotas_are_restored_if_the_owner_ended_without_the_daemon(
    calls: Calls, pod: api.PodSandbox
) -> None:
    others = [calls.create(pod, name, quota=10_000) for name in ("one", "two")]
    owner = calls.create(pod, "owner", OWNER)
    assert [quota(other) for other in others] == [5_000, 5_000]
    del calls.containers[owner.id]
    calls.connect()
    assert [quota(other) for other in others] == [10_000, 10_000]


async def test_limit_is_divided_again_when_the_kubelet_changes_it(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    others = [calls.create(pod, name, quota=10_000) for name in ("one", "two")]
    calls.create(pod, "owner", OWNER)
    limit.write_text("12000 100000\n")
    await until(lambda: limit.read_text() == "max")
    calls.apply_updates()
    assert [quota(other) for other in others] == [6_000, 6_000]


def test_kubelets_change_of_a_divided_quota_counts(calls: Calls, pod: api.PodSandbox) -> None:
    others = [calls.create(pod, name, quota=10_000) for name in ("one", "two")]
    owner = calls.create(pod, "owner", OWNER)
    calls.set_quota(others[0], 2_000)
    assert [quota(other) for other in others] == [2_000, 8_000]
    calls.set_quota(others[0], 20_000)
    assert [quota(other) for other in others] == [5_000, 5_000]
    calls.end(owner)
    assert [quota(other) for other in others] == [20_000, 10_000]


def test_quota_set_between_two_daemons_counts(calls: Calls, pod: api.PodSandbox) -> None:
    others = [calls.create(pod, name, quota=10_000) for name in ("one", "two")]
    calls.create(pod, "owner", OWNER)
    others[0].linux.resources.cpu.quota.value = 2_000
    calls.connect()
    assert [quota(other) for other in others] == [2_000, 8_000]


def test_failure_to_note_a_quota_is_logged(
    calls: Calls,
    pod: api.PodSandbox,
    limit: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    calls.create(pod, "owner", OWNER)
    assert limit.read_text() == "max"
    assert (
        f"could not note the CPU quota of pod default/a on its cgroup {limit.parent}: Operation"
        " not supported; it is not restored when its owners have ended"
    ) in caplog.messages


def test_bug_in_the_quotas_does_not_prevent_a_container_from_starting(
    calls: Calls,
    pod: api.PodSandbox,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(calls.quotas, "restore", None)
    plain = calls.create(pod, "plain")
    assert plain.linux.resources.cpu.cpus == "0-1"
    assert (
        "internal error while setting the CPU quotas of pod a: they are unchanged"
    ) in caplog.messages
