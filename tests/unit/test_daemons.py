"""Which processes a command of root trusts."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.host import daemons
from isolcpus_dp.host.files import Unseen

ROOT = "Name:\tkubelet\nUid:\t0\t0\t0\t0\nNSpid:\t90\n"


def process(proc: Path, status: str, **files: str) -> Path:
    """Process 90."""
    directory = proc / "90"
    directory.mkdir(exist_ok=True)
    for name, text in {"status": status, **files}.items():
        (directory / name).write_text(text)
    return directory


def test_process_of_root_is_trusted(tmp_path: Path) -> None:
    process(tmp_path, ROOT, cgroup="0::/system.slice/kubelet.service\n")
    assert daemons.is_trusted(tmp_path, 90)


@pytest.mark.parametrize(
    "uids",
    [
        "65534\t65534\t65534\t65534",
        "1000\t0\t0\t0",  # a setuid program that a user has started
        "0\t1000\t0\t1000",
        "",
    ],
)
def test_process_of_another_user_is_not_trusted(tmp_path: Path, uids: str) -> None:
    process(tmp_path, f"Name:\tkubelet\nUid:\t{uids}\n")
    assert not daemons.is_trusted(tmp_path, 90)


def test_process_that_has_ended_is_not_trusted(tmp_path: Path) -> None:
    assert not daemons.is_trusted(tmp_path, 90)


def test_process_in_a_container_is_not_trusted(tmp_path: Path) -> None:
    process(tmp_path, ROOT, cgroup=f"0::/kubepods.slice/cri-containerd-{'a' * 64}.scope\n")
    assert not daemons.is_trusted(tmp_path, 90)


def test_process_in_a_pid_namespace_is_not_trusted(tmp_path: Path) -> None:
    process(tmp_path, ROOT.replace("90", "90\t1"))
    assert not daemons.is_trusted(tmp_path, 90)


def test_program_that_users_can_run_as_root_is_not_trusted(tmp_path: Path) -> None:
    """sudo waits for a password as root, with a name and arguments of the user."""
    directory = process(tmp_path, ROOT)
    sudo = tmp_path / "sudo"
    sudo.touch()
    (directory / "exe").symlink_to(sudo)
    assert daemons.is_trusted(tmp_path, 90)
    sudo.chmod(0o4755)
    assert not daemons.is_trusted(tmp_path, 90)


def test_arguments_and_environment_are_read(tmp_path: Path) -> None:
    process(tmp_path, ROOT, cmdline="kubelet\0--v\x002\0", environ="A=1\0B=x=y\0C\0")
    assert daemons.arguments(tmp_path, 90) == ["kubelet", "--v", "2"]
    assert daemons.environment(tmp_path, 90) == {"A": "1", "B": "x=y"}


def test_long_command_line_is_not_read(tmp_path: Path) -> None:
    process(tmp_path, ROOT, cmdline="a\0" * (1 << 18))
    with pytest.raises(Unseen, match="90/cmdline is not read: it has more than 256 KiB"):
        daemons.arguments(tmp_path, 90)


def test_relative_path_is_in_the_directory_of_the_process(tmp_path: Path) -> None:
    directory = process(tmp_path, ROOT)
    assert daemons.absolute(tmp_path, 90, "a.yaml") == Path("/a.yaml")
    (directory / "cwd").symlink_to("/etc/kubernetes")
    assert daemons.absolute(tmp_path, 90, "a.yaml") == Path("/etc/kubernetes/a.yaml")
    assert daemons.absolute(tmp_path, 90, "/b.yaml") == Path("/b.yaml")
