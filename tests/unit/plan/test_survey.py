"""What is known about a host: its distribution, kubelet and container runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.plan import survey
from isolcpus_dp.plan.part import Target
from isolcpus_dp.plan.runtime import Runtime
from isolcpus_dp.simulator.machine import MadeUpMachine, described, parse_shape
from tests.unit.check.conftest import MadeUpHost

MACHINE = described(parse_shape("1x4x1"))


@pytest.mark.parametrize(
    ("release", "distribution", "kernel"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian", (6, 1)),
        ("ID=debian\nVERSION_ID=13\n", "debian", (6, 12)),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n', "debian", (6, 1)),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n', "el", (5, 14)),
        ("ID=fedora\nVERSION_ID=43\n", "el", (5, 14)),
        ("ID=opensuse-leap\nID_LIKE='suse opensuse'\n", "other", (5, 10)),
        ("", "other", (5, 10)),
    ],
)
def test_distribution_is_that_of_os_release(
    release: str, distribution: str, kernel: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    target = survey.of_machine(MACHINE, file, None).target
    assert (target.distribution, target.kernel) == (distribution, kernel)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without a kubelet and a runtime; its programs are those in bin/."""
    MadeUpHost(MadeUpMachine(tmp_path / "sys", parse_shape("1x4x1")), tmp_path)
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpuset cpu\n")
    (tmp_path / "proc/cmdline").write_text("quiet\n")
    (tmp_path / "os-release").write_text("ID=debian\nVERSION_ID=12\n")
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(survey, "PROGRAMS", str(tmp_path / "bin"))
    return tmp_path


def program(root: Path, name: str, prints: str) -> None:
    file = root / "bin" / name
    file.write_text(f"#!/bin/sh\necho '{prints}'\n")
    file.chmod(0o755)


def look(root: Path) -> survey.Known:
    read: Machine = machine.read(root / "sys")
    return survey.of_host(read, root / "os-release", root=root)


def test_bare_host_has_neither_kubelet_nor_runtime(root: Path) -> None:
    known = look(root)
    assert known.target == Target("debian", (6, 1), tuned=False, cgroup_v2=True)
    assert (known.kubelet.installed, known.runtime, known.cmdline) == (False, None, "quiet")
    assert known.notes == ()


def test_tuned_and_cgroup_v1_are_seen(root: Path) -> None:
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/sbin/tuned").write_text("")
    (root / "sys/fs/cgroup/cgroup.controllers").unlink()
    assert look(root).target == Target("debian", (6, 1), tuned=True, cgroup_v2=False)


def test_versions_are_those_that_programs_print(root: Path) -> None:
    program(root, "kubelet", "Kubernetes v1.31.2")
    program(root, "containerd", "containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24")
    (root / "var/lib/kubelet").mkdir(parents=True)
    (root / "var/lib/kubelet/config.yaml").write_text("reservedSystemCPUs: '0'\n")
    (root / "etc/containerd").mkdir(parents=True)
    (root / "etc/containerd/config.toml").write_text("version = 2\n")
    known = look(root)
    assert (known.kubelet.installed, known.kubelet.version) == (True, (1, 31))
    assert known.kubelet.facts.settings["reservedSystemCPUs"] == "0"
    assert known.runtime == Runtime("containerd", (1, 7), "version = 2")


def test_runtime_that_prints_no_version_is_known(root: Path) -> None:
    program(root, "crio", "no version")
    assert look(root).runtime == Runtime("crio", None, None)


def test_settings_that_cannot_be_read_are_reported(root: Path) -> None:
    program(root, "kubelet", "Kubernetes v1.36.0")
    (root / "var/lib/kubelet").mkdir(parents=True)
    (root / "var/lib/kubelet/config.yaml").write_text("a: [\n")
    known = look(root)
    assert known.kubelet.installed is None
    assert known.kubelet.version == (1, 36)
    assert known.notes[0].startswith("The kubelet's settings are not known: ")


def test_directory_of_drop_ins_is_that_of_the_running_kubelet(root: Path) -> None:
    drop_ins = root / "own.d"
    drop_ins.mkdir()
    (drop_ins / "10.conf").write_text("cpuManagerPolicy: static\n")
    (drop_ins / "90-isolcpus-dp.conf").write_text("cpuManagerPolicy: none\n")
    host = MadeUpHost(MadeUpMachine(root / "sys2", parse_shape("1x4x1")), root)
    host.process(50, "kubelet", "0-3")
    host.proc("50/cmdline", f"/usr/bin/kubelet\0--config-dir={drop_ins}\0")
    known = look(root).kubelet
    assert known.flags == {"config-dir": str(drop_ins)}
    # Without the file that the plan writes.
    assert known.facts.settings["cpuManagerPolicy"] == "static"


@pytest.mark.parametrize(
    ("process", "words", "unit"),
    [
        ("k3s-server", "/usr/local/bin/k3s server", "k3s"),
        ("k3s-agent", "/usr/local/bin/k3s agent", "k3s-agent"),
        ("rke2", "/usr/local/bin/rke2 agent", "rke2-agent"),
    ],
)
def test_unit_is_that_of_the_distribution(process: str, words: str, unit: str, root: Path) -> None:
    host = MadeUpHost(MadeUpMachine(root / "sys2", parse_shape("1x4x1")), root)
    host.process(50, process, "0-3")
    host.proc("50/cmdline", "\0".join([*words.split(), "--kubelet-arg=v=2"]) + "\0")
    assert look(root).kubelet.unit == unit
