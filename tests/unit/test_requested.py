"""The cpuset that a container would have without pinning."""

from __future__ import annotations

from isolcpus_dp.nri.requested import Requested


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
