"""The comparison of the books with what runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.vm.soak import books, manifest
from tests.vm.soak.books import Container, Rules, View
from tests.vm.soak.manifest import Pod

UID = "00000000-0000-4000-8000-000000000001"


def cpus(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split()))


def container(pod: str, name: str, text: str) -> Container:
    return Container(pod, name, cpus(text), (cpus(text),))


# A mixed pod that owns two CPUs, a pod that owns one, and a Guaranteed pod that owns none.
VIEW = View(
    cpus=frozenset(range(8)),
    isolated=cpus("2 3 6 7"),
    online=frozenset(range(8)),
    healthy=cpus("2 3 6 7"),
    held={"mixed": cpus("2 3"), "single": cpus("6")},
    phases={"mixed": "Running", "single": "Running", "static": "Running"},
    manifests={
        "mixed": Pod("mixed", UID, "mixed", 2),
        "single": Pod("single", UID, "owner", 1),
        "static": Pod("static", UID, "guaranteed"),
    },
    sandboxes=("mixed", "single", "static"),
    containers=(
        container("mixed", "main", "2 3"),
        container("mixed", "side", "0 1 4 5"),
        container("single", "main", "6"),
        container("static", "main", "0 1"),
    ),
    pins=True,
)

STATUS: dict[str, Any] = {
    "registered": True,
    "allocations": [{"pod": "mixed", "cpus": "2-3"}, {"pod": "single", "cpus": "6"}],
    "pools": [
        {
            "cpus": {
                "isolated": "2-3,6-7",
                "healthy": "2-3,6-7",
                "allocated": "2-3,6",
                "free": "7",
            },
            "unknown": [],
        }
    ],
}


def seen(*containers: Container) -> View:
    """The view with other containers in place of those of the same names."""
    names = {(one.pod, one.name) for one in containers}
    rest = [one for one in VIEW.containers if (one.pod, one.name) not in names]
    return replace(VIEW, containers=(*rest, *containers))


def test_nothing_is_wrong_if_everything_agrees() -> None:
    assert books.wrong(VIEW, Rules()) == []
    assert books.differences(STATUS, VIEW) == []


def test_cpu_with_two_owners_is_found() -> None:
    view = replace(VIEW, held={**VIEW.held, "single": cpus("3")})
    assert books.wrong(view, Rules()) == ["CPU 3 has the owners mixed, single"]


def test_cpu_that_a_removed_pod_holds_is_found() -> None:
    view = replace(VIEW, held={**VIEW.held, "gone": cpus("7")})
    assert books.wrong(view, Rules()) == ["pod gone is gone, and holds CPU 7"]


def test_pod_that_holds_less_than_it_requests_is_found() -> None:
    view = replace(VIEW, held={**VIEW.held, "mixed": cpus("2")})
    assert books.wrong(view, Rules()) == ["pod mixed requests 2 CPUs, and holds 2"]


def test_allocation_outside_the_isolated_cpus_is_found() -> None:
    view = replace(VIEW, held={**VIEW.held, "single": cpus("5")})
    assert books.wrong(view, Rules()) == ["CPU 5 of pod single is not isolated"]


def test_lost_device_is_found() -> None:
    view = replace(VIEW, healthy=cpus("2 3 6"))
    assert books.wrong(view, Rules()) == ["allocatable is 2-3,6, and should be 2-3,6-7"]


def test_disconnected_daemon_is_found() -> None:
    view = replace(VIEW, pins=False)
    assert books.wrong(view, Rules()) == ["the pinning daemon is not connected to the runtime"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            Container("single", "main", cpus("6 7"), (cpus("6"),)),
            "the cpuset of container main of pod single is 6-7, and should be 6",
        ),
        (
            Container("mixed", "side", cpus("0 1 4 5"), (cpus("0 1 4 5"), cpus("0 1 2"))),
            "a thread of container side of pod mixed may run on CPU 0-2, and should run on 0-1,4-5",
        ),
    ],
    ids=["cpuset", "thread"],
)
def test_container_with_other_cpus_is_found(changed: Container, sentence: str) -> None:
    assert books.wrong(seen(changed), Rules()) == [sentence]


def test_mixed_owner_also_has_the_housekeeping_cpus() -> None:
    mixed = seen(
        container("mixed", "main", "0 1 2 3 4 5"), container("single", "main", "0 1 4 5 6")
    )
    assert books.wrong(mixed, Rules(mixed=True)) == []
    assert len(books.wrong(VIEW, Rules(mixed=True))) == 4


def test_others_have_all_cpus_if_they_are_not_kept_off() -> None:
    shared = seen(
        container("mixed", "side", "0 1 2 3 4 5 6 7"), container("static", "main", "0 1 2 3")
    )
    assert books.wrong(shared, Rules(keep_others_off=False)) == []
    assert len(books.wrong(shared, Rules())) == 4


def test_empty_cpuset_is_no_limit() -> None:
    everywhere = Container("mixed", "side", frozenset(), (cpus("0 1 2 3 4 5 6 7"),))
    shared = seen(everywhere, container("static", "main", "0 1 2 3"))
    assert books.wrong(shared, Rules(keep_others_off=False)) == []
    assert any("cpuset of container side" in one for one in books.wrong(shared, Rules()))


def test_offline_cpu_is_neither_allocatable_nor_missing() -> None:
    offline = replace(VIEW, online=VIEW.online - {3}, healthy=cpus("2 6 7"))
    containers = [replace(one, allowed=(one.cpuset - {3},)) for one in VIEW.containers]
    assert books.wrong(replace(offline, containers=tuple(containers)), Rules()) == []


def test_owner_without_an_online_cpu_has_the_housekeeping_cpus() -> None:
    offline = replace(
        seen(container("single", "main", "0 1 4 5")),
        online=VIEW.online - {6},
        healthy=cpus("2 3 7"),
    )
    assert books.wrong(offline, Rules()) == []


def test_pod_that_was_rejected_holds_nothing_and_does_not_run() -> None:
    rejected = replace(
        VIEW,
        phases={**VIEW.phases, "single": "Failed: UnexpectedAdmissionError"},
        held={"mixed": cpus("2 3")},
    )
    assert books.wrong(rejected, Rules()) == [
        "a sandbox of pod single exists, and should not",
        "container main of pod single runs, and should not",
    ]
    ended = tuple(one for one in VIEW.containers if one.pod != "single")
    gone = replace(rejected, containers=ended, sandboxes=("mixed", "static"))
    assert books.wrong(gone, Rules()) == []


def test_container_that_has_ended_is_found() -> None:
    ended = replace(VIEW, containers=VIEW.containers[1:])
    assert books.wrong(ended, Rules()) == ["container main of pod mixed does not run"]


def test_pod_that_is_still_being_created_is_found() -> None:
    pending = replace(VIEW, phases={**VIEW.phases, "single": "Pending"})
    assert "pod single is Pending" in books.wrong(pending, Rules())


def test_status_that_differs_from_the_checkpoint_is_found() -> None:
    pool = STATUS["pools"][0]
    counts = {**pool["cpus"], "free": "6-7"}
    differing = {**STATUS, "pools": [{**pool, "cpus": counts}]}
    assert books.differences(differing, VIEW) == ["status says free CPUs: 6-7, and it should be 7"]


@pytest.mark.parametrize(
    "pod",
    [
        Pod("owner-1-node", UID, "owner", 4),
        Pod("mixed-2-node", UID, "mixed", 1, millis=400),
        Pod("plain-3-node", UID, "plain", millis=400),
        Pod("guaranteed-4-node", UID, "guaranteed"),
    ],
    ids=lambda pod: str(pod.kind),
)
def test_pod_is_the_same_after_its_manifest_is_read(pod: Pod) -> None:
    assert manifest.parse(manifest.render(pod, "node"), "node") == pod


def test_pod_is_limited_to_the_sum_of_its_containers() -> None:
    created = Pod("mixed", UID, "mixed", 1, millis=400).created()
    assert [one["quota"] for one in created["containers"]] == [40_000, 40_000]
    assert created["quota"] == 80_000
