"""Where the command itself may run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from isolcpus_dp.measure import confinement
from isolcpus_dp.measure.confinement import MARK, ConfinedError

USER = "/user.slice/user-0.slice/session-1.scope"


class Started(Exception):
    """Another program has replaced the process."""

    def __init__(self, path: str, words: list[str], environment: Mapping[str, str]) -> None:
        super().__init__(path)
        self.words = words
        self.environment = environment


class Host:
    def __init__(self, root: Path) -> None:
        self.sysfs = root / "sys"
        self.proc = root / "proc"

    def process(self, cgroups: str) -> None:
        directory = self.proc / str(os.getpid())
        directory.mkdir(parents=True)
        (directory / "cgroup").write_text(cgroups)

    def cgroup(self, name: str, cpus: str) -> None:
        file = self.sysfs / "fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{cpus}\n")

    def allowed(self) -> list[int] | None:
        cpus = confinement.allowed(self.sysfs, self.proc, os.getpid())
        return None if cpus is None else sorted(cpus)

    def leave(self, *cpus: int, environment: Mapping[str, str] | None = None) -> None:
        confinement.leave(cpus, self.sysfs, self.proc, environment or {})


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def confined(host: Host) -> Host:
    """A login session that systemd keeps off the CPUs 2 and 3."""
    host.process(f"0::{USER}\n")
    host.cgroup("user.slice/cpuset.cpus.effective", "0-1")
    host.cgroup("cpuset.cpus.effective", "0-3")
    return host


@pytest.fixture(autouse=True)
def replacing(monkeypatch: pytest.MonkeyPatch) -> None:
    def execve(path: str, words: list[str], environment: Mapping[str, str]) -> None:
        raise Started(path, words, environment)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("sys.argv", ["/usr/lib/isolcpus_dp/__main__.py", "measure", "--json"])
    monkeypatch.setattr("sys.executable", "/usr/bin/python3")


def test_nearest_cgroup_with_a_cpuset_decides(confined: Host) -> None:
    assert confined.allowed() == [0, 1]
    confined.cgroup(f"{USER[1:]}/cpuset.cpus.effective", "1")
    assert confined.allowed() == [1]


def test_root_cgroup_has_all_cpus(host: Host) -> None:
    host.process("0::/\n")
    host.cgroup("cpuset.cpus.effective", "0-3")
    assert host.allowed() == [0, 1, 2, 3]


def test_cpuset_of_cgroup_v1_counts(host: Host) -> None:
    host.process(f"4:memory:/a\n3:cpuset:/b\n0::{USER}\n")
    host.cgroup("cpuset/b/cpuset.effective_cpus", "0")
    assert host.allowed() == [0]


def test_host_without_cpusets_restricts_nothing(host: Host) -> None:
    host.process("0::/a\n")
    assert host.allowed() is None
    host.leave(2, 3)


def test_command_stays_where_it_may_run_on_the_cpus(confined: Host) -> None:
    confined.leave(0, 1)


def test_confined_command_is_started_in_a_scope(confined: Host) -> None:
    with pytest.raises(Started) as caught:
        confined.leave(2, environment={"HOME": "/root"})
    assert caught.value.words == [
        *("/usr/bin/systemd-run", "--scope", "--quiet", "--collect"),
        *("--slice=isolcpusmeasure.slice", "--"),
        *("/usr/bin/python3", "-m", "isolcpus_dp", "measure", "--json"),
    ]
    assert caught.value.environment == {"HOME": "/root", MARK: "1"}


def test_installed_program_is_started_by_its_path(
    confined: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "isolcpus-dp"
    program.touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(program), "measure"])
    with pytest.raises(Started) as caught:
        confined.leave(2)
    assert caught.value.words[-2:] == [str(program), "measure"]


def test_command_is_started_in_a_scope_only_once(confined: Host) -> None:
    with pytest.raises(ConfinedError) as caught:
        confined.leave(1, 2, 3, environment={MARK: "1"})
    assert str(caught.value) == (
        "CPU 2-3 cannot be used by a scope of systemd either: see AllowedCPUs= of"
        " isolcpusmeasure.slice and -.slice"
    )


def test_missing_systemd_run_is_named(confined: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ConfinedError) as caught:
        confined.leave(2)
    assert str(caught.value) == (
        "this process may not run on the CPUs to be measured, and systemd-run is missing: start"
        " the command in a cgroup whose cpuset has these CPUs"
    )


def test_threads_stay_on_the_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, frozenset[int]]] = []
    for tid in ("7", "8"):
        (tmp_path / "self/task" / tid).mkdir(parents=True)

    def set_affinity(tid: int, cpus: frozenset[int]) -> None:
        calls.append((tid, cpus))
        if tid == 7:
            raise ProcessLookupError

    monkeypatch.setattr(os, "sched_setaffinity", set_affinity)
    confinement.stay_on({0, 4}, tmp_path)
    assert calls == [(7, frozenset({0, 4})), (8, frozenset({0, 4}))]
