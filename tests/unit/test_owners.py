"""A CPU that has two owners is reported, and only then."""

from __future__ import annotations

import logging

import pytest

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri.owners import Owners


def pod(name: str, uid: str = "") -> api.PodSandbox:
    return api.PodSandbox(id=f"sandbox-{name}", name=name, uid=uid, namespace="default")


def container(pod: api.PodSandbox, name: str = "main", number: int = 0) -> api.Container:
    return api.Container(id=f"{pod.id}-{name}-{number}", pod_sandbox_id=pod.id, name=name)


A, B = pod("a", "uid-a"), pod("b", "uid-b")


@pytest.fixture
def owners() -> Owners:
    """Container main of pod a owns CPU 2-3."""
    owners = Owners()
    owners.add(A, container(A), frozenset({2, 3}))
    return owners


def test_cpu_of_two_pods_is_an_error_with_both_names(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    owners.add(B, container(B, "other"), frozenset({3, 4}))
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "CPU 3 has two owners: container main of pod default/a and container other of pod"
        " default/b; neither is moved: delete one of the pods"
    )
    fields = {name: value for name, value in vars(record).items() if name.isupper()}
    del fields["MESSAGE_ID"]
    assert fields == {
        "EVENT": "owned_twice",
        "CPU": "3",
        "POD": "default/b",
        "CONTAINER": "other",
        "OTHER_POD": "default/a",
        "OTHER_CONTAINER": "main",
    }


def test_pair_of_owners_is_reported_once(owners: Owners, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):  # created, started, updated
        owners.add(B, container(B), frozenset({2}))
    assert len(caplog.messages) == 1


def test_each_cpu_of_an_owner_is_reported_once(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    """With many owners of the same CPUs, the number of entries grows with the containers only."""
    c = pod("c", "uid-c")
    owners.add(B, container(B), frozenset({2, 4}))
    owners.add(c, container(c), frozenset({2, 3, 4}))
    assert [message.partition(";")[0] for message in caplog.messages[1:]] == [
        "CPU 2-3 has two owners: container main of pod default/a and container main of pod"
        " default/c",
        "CPU 4 has two owners: container main of pod default/b and container main of pod default/c",
    ]


def test_owners_of_different_cpus_are_not_reported(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    owners.add(B, container(B), frozenset({4}))
    owners.add(B, container(B, "plain"), frozenset())
    assert caplog.messages == []


def test_cpu_of_an_ended_container_may_have_a_new_owner(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    owners.ended(container(A).id)
    owners.ended("unknown")
    owners.add(B, container(B), frozenset({2, 3}))
    assert caplog.messages == []


def test_cpu_of_an_ended_pod_may_have_a_new_owner(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    owners.add(A, container(A, "second"), frozenset({6}))
    owners.pod_ended(A.id)
    owners.add(B, container(B), frozenset({2, 6}))
    assert caplog.messages == []


def test_containers_of_one_pod_may_share_their_cpus(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    """The kubelet gives the CPUs of an init container to a later container of the pod."""
    owners.add(A, container(A, "later"), frozenset({2, 3}))
    owners.add(A, container(A, number=1), frozenset({2, 3}))  # a restarted one
    renewed = api.PodSandbox(id="renewed", name="a", uid="uid-a", namespace="default")
    owners.add(renewed, container(renewed), frozenset({2, 3}))
    assert caplog.messages == []


def test_container_that_owns_nothing_any_more_is_no_owner(
    owners: Owners, caplog: pytest.LogCaptureFixture
) -> None:
    owners.add(A, container(A), frozenset())
    owners.add(B, container(B), frozenset({2}))
    assert caplog.messages == []


def test_pods_without_uid_are_told_apart_by_name(caplog: pytest.LogCaptureFixture) -> None:
    owners, first, second = Owners(), pod("a"), pod("b")
    owners.add(first, container(first), frozenset({2}))
    owners.add(second, container(second), frozenset({2}))
    assert len(caplog.messages) == 1
