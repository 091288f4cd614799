"""The container runtime, the daemons, and CPU quotas that throttle owners."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp.config import Config, PinningConfig
from isolcpus_dp.report.check import files, runtime
from isolcpus_dp.report.check.finding import Finding, Verdict

from .conftest import MadeUpHost

POD = "fs/cgroup/kubepods.slice/kubepods-pod1.slice"
PIN, PLUGIN = "isolcpus-dp-pin.service", "isolcpus-dp.service"
CONNECTED = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "StatusText": "Connected to containerd 2.1.9, isolated CPU 2-3,6-7",
}
ABSENT = {"LoadState": "not-found", "ActiveState": "inactive"}


@pytest.fixture
def owning(made_up: MadeUpHost) -> MadeUpHost:
    """default/forwarder/main owns CPUs 2 and 6; its process is 100."""
    made_up.owns("default/forwarder/main", 2, 6)
    made_up.process(100, "forwarder", "2,6")
    made_up.contains(100, "a", "default/forwarder/main")
    return made_up


def test_quota_without_owners_is_ok(made_up: MadeUpHost) -> None:
    assert runtime.cpu_quota(made_up.host()).evidence == "no container owns CPUs"


def test_owner_without_quota_is_ok(owning: MadeUpHost) -> None:
    owning.sys(f"{POD}/cpu.max", "max 100000")
    assert runtime.cpu_quota(owning.host()).evidence == "no owner has a CPU quota"


def test_quota_of_an_owners_pod_is_a_problem(owning: MadeUpHost) -> None:
    owning.sys(f"{POD}/cpu.max", "10000 100000")
    found = runtime.cpu_quota(owning.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == (
        "CPU quotas throttle owners: kubepods.slice/kubepods-pod1.slice/cpu.max is 10000"
    )


def test_quota_of_cgroups_version_1_is_a_problem(owning: MadeUpHost) -> None:
    owning.proc("100/cgroup", f"4:cpuset:/x\n3:cpu,cpuacct:/kubepods/pod1/{'a' * 64}\n0::/")
    owning.sys("fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1")
    owning.sys("fs/cgroup/cpu,cpuacct/kubepods/pod1/cpu.cfs_quota_us", "20000")
    found = runtime.cpu_quota(owning.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == "CPU quotas throttle owners: kubepods/pod1/cpu.cfs_quota_us is 20000"


def test_quota_with_cpuquota_keep_is_a_warning(owning: MadeUpHost) -> None:
    owning.config = Config(pinning=PinningConfig(cpu_quota="keep"))
    owning.sys(f"{POD}/cpu.max", "10000 100000")
    assert runtime.cpu_quota(owning.host()).verdict is Verdict.WARNING


def test_quota_is_unknown_without_the_kubelet(owning: MadeUpHost) -> None:
    owning.unseen = ("CPU owners: the kubelet does not answer",)
    with pytest.raises(files.Unseen, match="the kubelet does not answer"):
        runtime.cpu_quota(owning.host())


def test_quota_is_unknown_without_log_links(made_up: MadeUpHost) -> None:
    made_up.owns("default/forwarder/main", 2, 6)
    assert runtime.cpu_quota(made_up.host()).verdict is Verdict.UNKNOWN


def test_quota_of_an_owner_without_a_process_is_unknown(owning: MadeUpHost) -> None:
    owning.owns("default/other/main", 3)
    found = runtime.cpu_quota(owning.host())
    assert (found.verdict, found.evidence) == (
        Verdict.UNKNOWN,
        "found no process of default/other/main",
    )


def test_quota_is_a_problem_if_another_owner_has_no_process(owning: MadeUpHost) -> None:
    owning.owns("default/other/main", 3)
    owning.sys(f"{POD}/cpu.max", "10000 100000")
    assert runtime.cpu_quota(owning.host()).verdict is Verdict.PROBLEM


def test_quota_is_unknown_when_proc_hides_processes(owning: MadeUpHost) -> None:
    owning.hide_processes()
    with pytest.raises(files.Unseen, match="/proc hides processes"):
        runtime.cpu_quota(owning.host())


def look_for(made_up: MadeUpHost, path: Path, *, listens: bool = True) -> Finding:
    """The finding for a runtime whose socket is at this path."""
    host = made_up.host()
    roots = replace(host.roots, nri_socket=path, listens=lambda asked: listens and asked == path)
    return runtime.nri(replace(host, roots=roots))


@pytest.fixture
def nri_socket(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "nri.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        yield path


def test_runtime_that_listens_for_plugins_is_ok(made_up: MadeUpHost, nri_socket: Path) -> None:
    found = look_for(made_up, nri_socket)
    assert (found.verdict, found.evidence) == (Verdict.OK, f"the runtime listens on {nri_socket}")


def test_file_that_is_no_socket_is_not_the_runtimes(made_up: MadeUpHost, tmp_path: Path) -> None:
    path = tmp_path / "nri.sock"
    assert look_for(made_up, path).verdict is Verdict.WARNING
    path.write_text("")
    assert look_for(made_up, path).verdict is Verdict.WARNING


def test_socket_that_others_can_replace_is_not_trusted(made_up: MadeUpHost, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(files.Unseen, match="users other than root can write"):
        look_for(made_up, tmp_path / "open/nri.sock")


@pytest.mark.parametrize(("unit", "verdict"), [(CONNECTED, "problem"), (ABSENT, "warning")])
def test_runtime_without_nri_is_a_problem_if_pin_is_installed(
    made_up: MadeUpHost, nri_socket: Path, unit: dict[str, str], verdict: str
) -> None:
    made_up.units = {PIN: unit}
    assert look_for(made_up, nri_socket, listens=False).verdict.value == verdict


def test_runtime_without_nri_is_a_warning_without_systemd(
    made_up: MadeUpHost, nri_socket: Path
) -> None:
    assert look_for(made_up, nri_socket, listens=False).verdict is Verdict.WARNING


def test_runtime_is_unknown_if_the_kernel_lists_no_sockets(
    made_up: MadeUpHost, nri_socket: Path
) -> None:
    def refuse(path: Path) -> bool:
        raise OSError(errno.ENOENT, "No such file or directory")

    host = made_up.host()
    roots = replace(host.roots, nri_socket=nri_socket, listens=refuse)
    found = runtime.nri(replace(host, roots=roots))
    assert found.verdict is Verdict.UNKNOWN
    assert found.evidence == "the kernel does not list unix sockets: No such file or directory"


def test_connected_pin_daemon_is_ok(made_up: MadeUpHost) -> None:
    made_up.units = {PIN: CONNECTED}
    found = runtime.pin_daemon(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "Connected to containerd 2.1.9, isolated CPU 2-3,6-7",
    )


def test_absent_pin_daemon_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.units = {PIN: ABSENT}
    assert runtime.pin_daemon(made_up.host()).verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("changed", "evidence"),
    [
        ({"ActiveState": "failed"}, f"{PIN} is failed"),
        (
            {"StatusText": "Waiting for a container runtime"},
            f"{PIN} is running but not connected: Waiting for a container runtime",
        ),
    ],
)
def test_pin_daemon_that_does_not_pin_is_a_problem(
    made_up: MadeUpHost, changed: dict[str, str], evidence: str
) -> None:
    made_up.units = {PIN: {**CONNECTED, **changed}}
    found = runtime.pin_daemon(made_up.host())
    assert (found.verdict, found.evidence) == (Verdict.PROBLEM, evidence)


def test_pin_daemon_is_unknown_without_systemd(made_up: MadeUpHost) -> None:
    with pytest.raises(files.Unseen):
        runtime.pin_daemon(made_up.host())


def install(made_up: MadeUpHost, seconds_ago: float) -> None:
    """Both daemons started so long before the installation; the host booted at 1000 s."""
    module = made_up.directory / "package" / "cli.py"
    module.parent.mkdir(exist_ok=True)
    module.write_text("")
    since_boot = int((module.stat().st_ctime - seconds_ago - 1000) * 1e6)
    made_up.proc("stat", "cpu 1 2 3\nbtime 1000\nprocesses 7")
    unit = {**CONNECTED, "ExecMainStartTimestampMonotonic": str(since_boot)}
    made_up.units = {PLUGIN: unit, PIN: unit}


def test_daemons_of_the_installed_version_are_ok(made_up: MadeUpHost) -> None:
    install(made_up, -60)
    assert runtime.versions(made_up.host()).verdict is Verdict.OK


def test_daemons_from_before_an_upgrade_are_a_warning(made_up: MadeUpHost) -> None:
    install(made_up, 60)
    found = runtime.versions(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.advice == f"Run: systemctl restart {PLUGIN} {PIN}"


def test_host_without_daemons_has_no_version_to_compare(made_up: MadeUpHost) -> None:
    made_up.units = {PLUGIN: ABSENT, PIN: ABSENT}
    assert runtime.versions(made_up.host()).evidence == "no isolcpus-dp daemon is running"


def test_version_is_unknown_without_the_time_of_boot(made_up: MadeUpHost) -> None:
    install(made_up, 60)
    (made_up.directory / "proc/stat").unlink()
    with pytest.raises(files.Unseen, match="has no btime line"):
        runtime.versions(made_up.host())


DEFAULTS, OTHER = "f06d8861\n", "00000000\n"  # fingerprints: of the default configuration


def publish(made_up: MadeUpHost, plugin: str, pin: str) -> None:
    for directory, fingerprint in (("isolcpus-dp", plugin), ("isolcpus-dp-pin", pin)):
        file = made_up.directory / "run" / directory / "configuration"
        file.parent.mkdir(parents=True)
        file.write_text(fingerprint)


def test_daemons_with_the_configuration_of_the_files_are_ok(made_up: MadeUpHost) -> None:
    install(made_up, -60)
    publish(made_up, DEFAULTS, DEFAULTS)
    found = runtime.versions(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        f"running the installed version: {PLUGIN}; {PIN}",
    )


def test_daemons_with_an_older_configuration_are_a_warning(made_up: MadeUpHost) -> None:
    install(made_up, -60)
    publish(made_up, OTHER, OTHER)
    found = runtime.versions(made_up.host())
    assert (found.verdict, found.evidence, found.advice) == (
        Verdict.WARNING,
        f"running with an older configuration than that of the files: {PLUGIN}; {PIN}",
        f"Run: systemctl reload {PLUGIN} {PIN}",
    )


def test_only_the_daemon_with_an_older_configuration_is_named(made_up: MadeUpHost) -> None:
    install(made_up, -60)
    publish(made_up, DEFAULTS, OTHER)
    assert runtime.versions(made_up.host()).advice == f"Run: systemctl reload {PIN}"


def test_daemon_that_is_not_running_has_no_configuration(made_up: MadeUpHost) -> None:
    install(made_up, -60)
    made_up.units[PIN] = ABSENT
    publish(made_up, DEFAULTS, OTHER)
    assert runtime.versions(made_up.host()).verdict is Verdict.OK


def test_daemon_from_before_an_upgrade_is_restarted_not_reloaded(made_up: MadeUpHost) -> None:
    install(made_up, 60)
    publish(made_up, OTHER, OTHER)
    since_boot = int(made_up.units[PIN]["ExecMainStartTimestampMonotonic"]) + 120_000_000
    made_up.units[PIN] = {
        **made_up.units[PIN],
        "ExecMainStartTimestampMonotonic": str(since_boot),
    }
    found = runtime.versions(made_up.host())
    assert found.evidence == (
        f"not restarted since the last upgrade: {PLUGIN}; running with an older configuration than"
        f" that of the files: {PIN}"
    )
    assert found.advice == f"Run: systemctl restart {PLUGIN}; systemctl reload {PIN}"


def test_configuration_that_cannot_be_read_is_unknown(made_up: MadeUpHost) -> None:
    install(made_up, -60)
    # As root, a directory in its place is an error, unlike missing permissions.
    (made_up.directory / "run/isolcpus-dp/configuration").mkdir(parents=True)
    with pytest.raises(files.Unseen, match="run/isolcpus-dp/configuration is not a regular file"):
        runtime.versions(made_up.host())
    # What can be seen is still reported.
    install(made_up, 60)
    made_up.units[PLUGIN] = {**made_up.units[PLUGIN], "ExecMainStartTimestampMonotonic": "9" * 18}
    assert runtime.versions(made_up.host()).advice == f"Run: systemctl restart {PIN}"
