"""User processes on CPUs that they do not own."""

from __future__ import annotations

import pytest

from isolcpus_dp.report.check import files, processes
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost


def test_owner_on_its_cpus_is_ok(made_up: MadeUpHost) -> None:
    made_up.owns("default/forwarder/main", 2, 6)
    made_up.process(100, "forwarder", "2,6", ran_on=2)
    made_up.contains(100, "a", "default/forwarder/main")
    found = processes.foreign(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "only owners may run on isolated CPUs",
    )


def test_owner_is_foreign_on_cpus_it_does_not_own(made_up: MadeUpHost) -> None:
    made_up.owns("default/forwarder/main", 2, 6)
    made_up.process(100, "forwarder", "2-3,6", ran_on=2)
    made_up.contains(100, "a", "default/forwarder/main")
    found = processes.foreign(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.WARNING,
        "may run on isolated CPUs: forwarder (process 100) in default/forwarder/main,"
        " allowed on CPU 3",
    )


def test_other_container_in_an_owners_pod_is_foreign(made_up: MadeUpHost) -> None:
    made_up.owns("default/forwarder/main", 2, 6)
    made_up.process(100, "sidecar", "0-7", ran_on=2)
    made_up.contains(100, "b", "default/forwarder/helper")
    found = processes.foreign(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.PROBLEM,
        "ran on isolated CPUs: sidecar (process 100) in default/forwarder/helper,"
        " allowed on CPU 2-3,6-7",
    )


def test_any_thread_makes_a_host_process_foreign(made_up: MadeUpHost) -> None:
    made_up.second_thread(100, "busy", "3", ran_on=3)
    found = processes.foreign(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.PROBLEM,
        "ran on isolated CPUs: busy (process 100), allowed on CPU 3",
    )


def test_only_the_first_processes_are_listed(made_up: MadeUpHost) -> None:
    for pid in range(100, 110):
        made_up.process(pid, "worker", "0-7")
    found = processes.foreign(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence.count("worker") == 4
    assert found.evidence.endswith("; and 6 more")


def test_container_without_a_log_link_is_named_by_its_id(made_up: MadeUpHost) -> None:
    made_up.process(100, "strange", "0-7")
    made_up.contains(100, "c", None)
    assert "in container cccccccccccc, allowed" in processes.foreign(made_up.host()).evidence


def test_conmon_is_not_its_container(made_up: MadeUpHost) -> None:
    made_up.owns("default/owner/main", 2, 3, 6, 7)
    made_up.contains(100, "a", "default/owner/main")
    made_up.process(100, "worker", "2-3,6-7")
    made_up.process(101, "conmon", "0-7")
    made_up.proc("101/cgroup", f"0::/kubepods.slice/crio-conmon-{'a' * 64}.scope")
    found = processes.foreign(made_up.host())
    assert found.verdict is not Verdict.OK
    assert "conmon (process 101)" in found.evidence


def test_pod_sandbox_is_ignored(made_up: MadeUpHost) -> None:
    made_up.process(100, "pause", "0-7", ran_on=2)
    made_up.contains(100, "c", None)
    assert processes.foreign(made_up.host()).verdict is Verdict.OK


def test_containers_are_unknown_without_the_kubelet(
    made_up: MadeUpHost,
) -> None:
    made_up.unseen = ("CPU owners: the kubelet does not answer",)
    made_up.process(100, "forwarder", "2,6", ran_on=2)
    made_up.contains(100, "a", "default/forwarder/main")
    found = processes.foreign(made_up.host())
    assert found.verdict is Verdict.UNKNOWN
    assert "the kubelet does not answer" in found.evidence


def test_containers_are_unknown_without_their_log_links(
    made_up: MadeUpHost,
) -> None:
    made_up.owns("default/forwarder/main", 2, 6)
    made_up.process(100, "forwarder", "2,6", ran_on=2)
    made_up.contains(100, "a", None)
    found = processes.foreign(made_up.host())
    assert found.verdict is Verdict.UNKNOWN
    assert found.evidence.endswith("/containers lists no containers")


def test_host_process_is_foreign_without_the_kubelet(made_up: MadeUpHost) -> None:
    made_up.unseen = ("CPU owners: the kubelet does not answer",)
    made_up.process(100, "busy", "3", ran_on=3)
    assert processes.foreign(made_up.host()).verdict is Verdict.PROBLEM


@pytest.mark.parametrize("name", ["", "bash"])
def test_foreign_processes_are_unknown_when_proc_hides_some(made_up: MadeUpHost, name: str) -> None:
    made_up.hide_processes()
    if name:  # in a PID namespace, process 2 is not kthreadd
        made_up.process(2, name, "0-7")
    with pytest.raises(files.Unseen, match="/proc hides processes"):
        processes.foreign(made_up.host())
