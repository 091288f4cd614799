"""The test harness itself: the hardware of the machine, and the results of commands."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from .guest import Guest

PACKAGE = """\
Package: tiny
Version: 1
Architecture: all
Maintainer: Nobody <nobody@localhost>
Depends: python3-grpcio, systemd
Description: something to install
"""

PANIC_ONCE = """\
[Unit]
DefaultDependencies=no
ConditionPathExists=/root/panics
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'rm /root/panics; sync; echo c > /proc/sysrq-trigger'
[Install]
WantedBy=sysinit.target
"""


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    tree = tmp_path_factory.mktemp("tiny")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(PACKAGE)
    package = tree.with_name("tiny.deb")
    subprocess.run(["dpkg-deb", "--build", tree, package], check=True)
    return [package]


def read(guest: Guest, path: str) -> str:
    return guest.run(f"cat {path}").stdout.strip()


def test_everything_has_started(guest: Guest) -> None:
    assert guest.run("systemctl is-system-running").stdout == "running\n"


def test_one_core_of_each_node_is_isolated(guest: Guest) -> None:
    assert read(guest, "/sys/devices/system/cpu/isolated") == "2-3,6-7"
    assert read(guest, "/sys/devices/system/cpu/nohz_full") == "2-3,6-7"


def test_machine_has_two_nodes_of_two_cores_with_two_threads(guest: Guest) -> None:
    assert read(guest, "/sys/devices/system/node/node*/cpulist") == "0-3\n4-7"
    siblings = read(guest, "/sys/devices/system/cpu/cpu[0246]/topology/thread_siblings_list")
    assert siblings == "0-1\n2-3\n4-5\n6-7"
    packages = read(guest, "/sys/devices/system/cpu/cpu[0246]/topology/physical_package_id")
    assert packages == "0\n0\n1\n1"


def test_each_node_has_a_last_level_cache(guest: Guest) -> None:
    shared = read(guest, "/sys/devices/system/cpu/cpu[26]/cache/index3/shared_cpu_list")
    assert shared == "0-3\n4-7"


def test_clock_runs_as_fast_as_the_clock_of_the_host(guest: Guest) -> None:
    assert 0.5 < guest.clock_rate() < 1.5


def test_isolated_cpu_goes_offline_and_comes_back(guest: Guest) -> None:
    guest.run("echo 0 > /sys/devices/system/cpu/cpu3/online")
    assert read(guest, "/sys/devices/system/cpu/online") == "0-2,4-7"
    guest.bring_online(3)
    assert read(guest, "/sys/devices/system/cpu/online") == "0-7"


def test_package_installs_without_a_network(guest: Guest) -> None:
    guest.run("apt-get install --yes /mnt/files/tiny.deb", timeout=600)
    assert guest.run("dpkg-query --show tiny").stdout == "tiny\t1\n"


def test_error_of_a_failed_command_contains_its_output(guest: Guest) -> None:
    with pytest.raises(AssertionError, match=r"(?s)exit status 3.*to stdout.*to stderr"):
        guest.run("echo to stdout; echo to stderr >&2; exit 3")


def test_unchecked_command_returns_its_status(guest: Guest) -> None:
    assert guest.run("exit 3", check=False).status == 3


def test_command_and_its_children_are_killed_at_the_timeout(guest: Guest) -> None:
    result = guest.run("echo before; sleep 1000", timeout=2, check=False)
    assert (result.status, result.stdout) == (124, "before\n")
    guest.wait_until("! pgrep --exact sleep")  # a zombie until systemd has reaped it


def test_large_output_is_complete(guest: Guest) -> None:
    assert len(guest.run("head --bytes=1000000 /dev/zero | tr '\\0' x").stdout) == 1000000


def test_waiting_ends_when_the_condition_becomes_true(guest: Guest) -> None:
    guest.run("systemd-run sh -c 'sleep 2; touch /run/condition'")
    guest.wait_until("test -e /run/condition")


def test_error_of_a_false_condition_contains_its_last_output(guest: Guest) -> None:
    with pytest.raises(AssertionError, match="not yet"):
        guest.wait_until("echo not yet; false", timeout=2)


def test_reboot_keeps_the_disk_and_restarts_everything(guest: Guest) -> None:
    guest.run("touch /run/before /root/before; logger before the reboot")
    guest.reboot()
    guest.run("test -e /root/before -a ! -e /run/before -a -e /mnt/files/tiny.deb")
    assert guest.run("systemctl is-system-running").stdout == "running\n"
    assert "before the reboot" in guest.run("journalctl --boot=-1").stdout
    assert "before the reboot" not in guest.journal()


def test_boot_that_panics_is_repeated(guest: Guest) -> None:
    guest.run(
        f"cat > /etc/systemd/system/panic.service <<'END'\n{PANIC_ONCE}END\n"
        "touch /root/panics; systemctl enable panic"
    )
    guest.reboot()
    guest.run("test ! -e /root/panics")
    assert "sysrq triggered crash" in guest.console.read_text(errors="replace")
    assert guest.run("systemctl is-system-running").stdout == "running\n"
