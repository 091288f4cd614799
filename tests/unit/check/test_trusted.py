"""What another user does on the host does not change what a check of root finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isolcpus_dp.report.check import files, interrupts, kubelet, processes, table
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost

NOBODY = "65534 65534 65534 65534"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.mark.parametrize("uids", [NOBODY, "65534 0 0 0"], ids=["nobody", "setuid"])
def test_kubelet_of_another_user_is_ignored(made_up: MadeUpHost, tmp_path: Path, uids: str) -> None:
    made_up.kubelet("config.yaml", "reservedSystemCPUs: 0-1")
    (tmp_path / "its.yaml").write_text("reservedSystemCPUs: 0,2-3,6-7\n")
    made_up.process(50, "kubelet", "0-1,4-5", uids=uids)
    made_up.proc("50/cmdline", f"kubelet\0--config={tmp_path}/its.yaml\0--reserved-cpus=2-3,6-7\0")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.PROBLEM
    # The kubelet itself is found, also with a higher PID.
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "kubelet\0--reserved-cpus=2-3\0")
    found = kubelet.reserved_cpus(made_up.host())
    assert found.evidence.startswith("reservedSystemCPUs is 2-3: ")


def test_irqbalance_of_another_user_is_ignored(made_up: MadeUpHost) -> None:
    made_up.process(50, "irqbalance", "0-1,4-5", uids=NOBODY)
    made_up.proc("50/environ", "IRQBALANCE_BANNED_CPULIST=2-3,6-7\0")
    assert interrupts.irqbalance(made_up.host()).evidence == "irqbalance is not running"
    made_up.process(90, "irqbalance", "0-1,4-5")
    made_up.proc("90/environ", "IRQBALANCE_BANNED_CPULIST=2\0")
    assert interrupts.irqbalance(made_up.host()).verdict is Verdict.PROBLEM


def test_process_in_a_pid_namespace_is_not_the_kubelet(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", "reservedSystemCPUs: 0-1")
    made_up.process(50, "kubelet", "0-1,4-5", pids="50 1")
    made_up.proc("50/cmdline", "kubelet\0--reserved-cpus=2-3,6-7\0")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.PROBLEM


@root_only
def test_kubelets_file_that_others_can_write_is_unknown(
    made_up: MadeUpHost, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    file = tmp_path / "home/kubelet.yaml"
    file.write_text("reservedSystemCPUs: 0,2-3,6-7\n")
    os.chown(tmp_path / "home", 1000, -1)
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", f"kubelet\0--config={file}\0")
    [result] = table.run(made_up.host(), ["reserved-cpus"])
    assert (result.finding.verdict, result.finding.evidence) == (
        Verdict.UNKNOWN,
        f"{file} is not trusted: {tmp_path}/home belongs to user 1000; run chown root"
        f" {tmp_path}/home",
    )


@pytest.mark.parametrize("name", ["config.yaml", "cpu_manager_state"])
def test_file_in_the_kubelets_directory_must_be_roots(made_up: MadeUpHost, name: str) -> None:
    made_up.kubelet("config.yaml", "cpuManagerPolicy: static")
    made_up.kubelet("cpu_manager_state", '{"policyName": "static"}')
    file = made_up.directory / "kubelet" / name
    file.chmod(0o666)
    with pytest.raises(files.Unseen, match=f"users other than root can write {file}"):
        kubelet.cpu_manager(made_up.host())


def test_drop_in_directory_must_be_roots(made_up: MadeUpHost, tmp_path: Path) -> None:
    (tmp_path / "drop-ins").mkdir()
    (tmp_path / "drop-ins").chmod(0o777)
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", f"kubelet\0--config-dir={tmp_path}/drop-ins\0")
    with pytest.raises(files.Unseen, match="drop-ins is not trusted: users other than root"):
        kubelet.reserved_cpus(made_up.host())


def test_relative_file_is_in_the_kubelets_directory(made_up: MadeUpHost, tmp_path: Path) -> None:
    (tmp_path / "its").mkdir()
    (tmp_path / "its/own.yaml").write_text("reservedSystemCPUs: 0,2-3,6-7\n")
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "kubelet\0--config=own.yaml\0")
    (made_up.directory / "proc/90/cwd").symlink_to(tmp_path / "its")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


def contains(made_up: MadeUpHost, directory: str) -> str:
    """The finding about a process that is in a cgroup of the owner's name in this directory."""
    made_up.owns("default/owner/main", 2, 3, 6, 7)
    made_up.process(100, "worker", "0-1,4-5")
    made_up.contains(100, "a", "default/owner/main")
    made_up.process(101, "intruder", "0-7", ran_on=2, uids="1000 1000 1000 1000")
    made_up.proc("101/cgroup", f"0::/{directory}/cri-containerd-{'a' * 64}.scope")
    return processes.foreign(made_up.host()).evidence


@root_only
def test_cgroup_of_a_user_is_no_container(made_up: MadeUpHost) -> None:
    directory = "user.slice/user-1000.slice/user@1000.service"
    made_up.sys(f"fs/cgroup/{directory}/cgroup.procs", "")
    os.chown(made_up.tree.root / "fs/cgroup" / directory, 1000, -1)
    assert contains(made_up, directory) == (
        "ran on isolated CPUs: intruder (process 101), allowed on CPU 2-3,6-7"
    )


@root_only
@pytest.mark.parametrize("separator", ["\r", "\v", "\x85", "\u2028"])
def test_name_of_a_cgroup_adds_no_line(made_up: MadeUpHost, separator: str) -> None:
    made_up.sys("fs/cgroup/kubepods.slice/cgroup.procs", "")
    directory = f"user.slice/user-1000.slice/x{separator}0::/kubepods.slice"
    made_up.sys(f"fs/cgroup/{directory}/cgroup.procs", "")
    os.chown(made_up.tree.root / "fs/cgroup" / directory, 1000, -1)
    assert contains(made_up, directory) == (
        "ran on isolated CPUs: intruder (process 101), allowed on CPU 2-3,6-7"
    )


def test_cgroup_that_root_created_is_a_container(made_up: MadeUpHost) -> None:
    made_up.sys("fs/cgroup/kubepods.slice/cgroup.procs", "")
    assert contains(made_up, "kubepods.slice") == "only owners may run on isolated CPUs"


def test_container_names_that_others_can_write_are_not_used(made_up: MadeUpHost) -> None:
    made_up.owns("default/owner/main", 2, 3, 6, 7)
    made_up.process(100, "worker", "2-3,6-7")
    made_up.contains(100, "a", "default/owner/main")
    (made_up.directory / "containers").chmod(0o777)
    found = processes.foreign(made_up.host())
    assert found.verdict is Verdict.UNKNOWN
    assert "/containers is not trusted: users other than root can write it" in found.evidence
