"""What is left of containers that were not created, updates that failed, and rules that changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.nri import pinning
from isolcpus_dp.nri.messages import Update, update_of
from isolcpus_dp.nri.requested import Requested
from isolcpus_dp.nri.session import Session
from isolcpus_dp.nri.ttrpc import CallError, Connection
from isolcpus_dp.nri.unconfirmed import Unconfirmed

from . import test_pods
from .conftest import MakeUp
from .nri_runtime import Runtime
from .runtime_calls import OWNER, Calls, quota

# The fixtures of these tests: a pod with a limit of a tenth of a CPU.
calls, limit, pod = test_pods.calls, test_pods.limit, test_pods.pod


def test_refused_container_gets_no_part_of_its_pods_limit(
    calls: Calls, pod: api.PodSandbox
) -> None:
    calls.create(pod, "owner", OWNER)
    other = calls.create(pod, "other", quota=10_000)
    before = calls.rules
    calls.rules = replace(before, nameable=frozenset({2, 3}), housekeeping=frozenset())
    with pytest.raises(CallError):
        calls.create(pod, "refused", quota=10_000)
    calls.rules = before
    calls.end(calls.create(pod, "second", OWNER))
    assert quota(other) == 10_000


def test_container_that_another_plugin_rejected_is_replaced_by_the_next(
    calls: Calls, pod: api.PodSandbox
) -> None:
    calls.create(pod, "owner", OWNER)
    calls.rejected(pod, "other", quota=10_000)
    other = calls.create(pod, "other", quota=10_000)
    assert quota(other) == 10_000


def test_container_that_another_plugin_rejected_is_forgotten_with_the_next(
    calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    pod = calls.pod("a")
    rejected = calls.rejected(pod, "other", OWNER)
    assert calls.requested.cpuset(rejected.id, "2-3") == ""
    calls.create(pod, "other")
    assert calls.requested.cpuset(rejected.id, "2-3") == "2-3"
    calls.create(calls.pod("b"), "owner", OWNER)
    assert [one for one in caplog.messages if "two owners" in one] == []


def test_container_that_is_removed_has_no_update_to_repeat(calls: Calls) -> None:
    container = calls.create(calls.pod("a"), "main")
    calls.unconfirmed.add(container.id)  # as after an update that failed
    calls.event(11, calls.pods["a"], container)
    assert container.id not in calls.unconfirmed


@pytest.mark.parametrize("event", ["pod stopped", "container removed"])
def test_rejected_owner_does_not_outlive_its_pod(
    calls: Calls, pod: api.PodSandbox, limit: Path, event: str
) -> None:
    rejected = calls.rejected(pod, "owner", OWNER)
    assert limit.read_text() == "max"
    calls.event(2 if event == "pod stopped" else 11, pod, rejected)
    assert limit.read_text() == "10000 100000"


def test_late_update_of_an_ended_owner_does_not_lift_the_quota_again(
    calls: Calls, pod: api.PodSandbox, limit: Path
) -> None:
    owner = calls.create(pod, "init", OWNER)
    calls.end(owner)
    owner.state = api.CONTAINER_STOPPED
    calls.set_quota(owner, 2_000)
    assert limit.read_text() == "10000 100000"


def test_error_in_the_quotas_does_not_move_an_owner(
    calls: Calls, pod: api.PodSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls.quotas, "note", None)
    assert calls.create(pod, "owner", OWNER).linux.resources.cpu.cpus == "2-3"


def test_success_of_a_quota_does_not_confirm_a_cpuset(calls: Calls, pod: api.PodSandbox) -> None:
    calls.create(pod, "owner", OWNER)
    other = calls.create(pod, "other", quota=10_000)
    calls.unconfirmed.add(other.id)  # the update of its cpuset has failed
    calls.create(pod, "second", quota=10_000)
    assert quota(other) == 5_000
    assert other.id in calls.unconfirmed


def test_cpuset_in_an_answer_is_not_confirmed_while_a_quota_has_no_result(
    calls: Calls, pod: api.PodSandbox
) -> None:
    calls.create(pod, "owner", OWNER)
    other = calls.create(pod, "other", quota=10_000)
    calls.create(pod, "second", quota=10_000)
    other.linux.resources.cpu.cpus = "0-3"
    other.linux.resources.cpu.quota.value = 10_000
    calls.connect()
    assert quota(other) == 5_000
    calls.create(calls.pod("another"), "plain")  # the runtime goes on
    assert other.id in calls.unconfirmed


@pytest.fixture
async def session(make_up: MakeUp, tmp_path: Path) -> AsyncIterator[Session]:
    """A session that a runtime has synchronized."""
    present = machine.read(make_up("1x4x1", {2, 3}).root)
    rules = pinning.rules(present, Config(), present.present, frozenset())
    runtime = Runtime()
    async with runtime.listening(tmp_path / "nri.sock"):
        made = Session(tmp_path / "nri.sock", tmp_path, rules, Unconfirmed(), Requested(), print)
        running = asyncio.create_task(made.run())
        await runtime.until(lambda: len(runtime.plugins) == 1)
        yield made
        running.cancel()
        await asyncio.wait([running])


def update(quota: int, *, confirms: bool = True) -> Update:
    resources = api.LinuxResources(cpu=api.LinuxCPU(quota=api.OptionalInt64(value=quota)))
    return Update(update_of(api.Container(id="a"), resources), "default/a", "a", confirms)


async def test_updates_are_sent_one_after_the_other(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime may process two calls in any order, and the later quota must win."""
    sent: list[int] = []
    finished = asyncio.Event()

    async def call(
        connection: Connection, service: str, method: str, payload: bytes, seconds: float
    ) -> bytes:
        [one] = api.UpdateContainersRequest.FromString(payload).update
        value = one.linux.resources.cpu.quota.value
        await asyncio.sleep(0.02 if value == 1 else 0)  # the first one takes longer
        sent.append(value)
        if value == 2:
            finished.set()
        return b""

    monkeypatch.setattr(Connection, "call", call)
    session.update(update(1))
    session.update(update(2))
    await asyncio.wait_for(finished.wait(), 10)
    assert sent == [1, 2]


async def test_failure_after_a_success_leaves_a_container_in_doubt(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asyncio.Event()

    async def call(
        connection: Connection, service: str, method: str, payload: bytes, seconds: float
    ) -> bytes:
        if done.is_set():
            raise CallError(2, "no such container")
        done.set()
        return b""

    monkeypatch.setattr(Connection, "call", call)
    session.unconfirmed.add("a")
    session.update(update(1))
    session.update(update(2, confirms=False))
    for _ in range(1000):
        await asyncio.sleep(0)
    assert "a" in session.unconfirmed


async def test_outdated_session_keeps_sandboxes_off_by_the_new_rules(
    session: Session, tmp_path: Path
) -> None:
    directory = tmp_path / "kubepods/poda/a"
    directory.mkdir(parents=True)
    (directory / "cgroup.threads").write_text("17\n")
    (directory / "cpuset.cpus").write_text("\n")
    session.outdate(replace(session.rules, housekeeping=frozenset({0})))
    linux = api.LinuxPodSandbox(cgroup_parent="/kubepods/poda")
    session.sandboxes.keep_off(api.PodSandbox(id="a", linux=linux))
    assert (directory / "cpuset.cpus").read_text() == "0"
