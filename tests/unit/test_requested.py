"""The cpuset that a container would have without pinning."""

from __future__ import annotations

from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.nri.requested import NOTE, Requested, note


def test_unknown_container_would_have_what_is_reported() -> None:
    assert Requested().cpuset("a", "0-3") == "0-3"
    assert Requested().cpuset("a", "") == ""


def test_cpuset_that_was_given_stands_for_the_requested_one() -> None:
    requested = Requested()
    requested.replace("a", "", "0-1,4-5")
    requested.replace("a", "", "0-1,5")
    assert requested.cpuset("a", "0-1,5") == ""
    # The last update may have failed.
    assert requested.cpuset("a", "0-1,4-5") == ""
    assert requested.cpuset("b", "0-1,5") == "0-1,5"


def test_cpuset_that_another_has_set_is_the_requested_one() -> None:
    requested = Requested()
    requested.replace("a", "0-3", "0-1")
    assert requested.cpuset("a", "4-5") == "4-5"


def test_new_request_replaces_the_earlier_one() -> None:
    requested = Requested()
    requested.replace("a", "0-3", "0-1")
    requested.replace("a", "3-5", "4-5")
    assert requested.cpuset("a", "4-5") == "3-5"
    assert requested.cpuset("a", "0-1") == "0-1"


def test_ended_containers_are_forgotten() -> None:
    requested = Requested()
    for name in ("a", "b", "c"):
        requested.replace(name, "", "0-1")
    requested.keep(["a", "b"])
    requested.ended("b")
    requested.ended("unknown")
    assert [requested.cpuset(name, "0-1") for name in ("a", "b", "c")] == ["", "0-1", "0-1"]


def test_note_of_a_container_tells_the_next_daemon() -> None:
    pod = api.PodSandbox(id="pod")
    assert (note("", "0-1,4-5"), note("0-3", "0-1")) == ("all 0-1,4-5", "0-3 0-1")
    requested = Requested()
    for name, text in (("a", "all 0-1,4-5"), ("b", "0-3 0-1"), ("c", "0-3"), ("d", "")):
        requested.recall(pod, api.Container(id=name, annotations={NOTE: text}))
    assert requested.cpuset("a", "0-1,4-5") == ""
    assert requested.cpuset("a", "0-1") == "0-1"  # not what was noted
    assert requested.cpuset("b", "0-1") == "0-3"
    assert (requested.cpuset("c", "0-3"), requested.cpuset("d", "")) == ("0-3", "")


def test_note_that_a_pods_author_may_have_written_does_not_count() -> None:
    forged = {NOTE: "all 0-1"}
    requested = Requested()
    container = api.Container(id="a", annotations=forged)
    requested.recall(api.PodSandbox(id="pod", annotations=forged), container)
    requested.recall(api.PodSandbox(), container)  # its pod is not known
    assert requested.cpuset("a", "0-1") == "0-1"


def test_note_does_not_replace_what_is_known() -> None:
    requested = Requested()
    requested.replace("a", "0-2", "0-1")
    requested.recall(api.PodSandbox(id="pod"), api.Container(id="a", annotations={NOTE: "all 0-1"}))
    assert requested.cpuset("a", "0-1") == "0-2"
