"""The device plugin under systemd with faults: killed and hung processes, replaced files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from isolcpus_dp.service.events import Event
from tests.packages.build import as_made

from .extent import times
from .guest import Guest
from .node import (
    PIDFILE,
    install,
    main_process,
    messages,
    show,
    start_kubelet,
    wait_for_devices,
    wait_for_registration,
    worker,
)

SOCKET = "/var/lib/kubelet/device-plugins/kubelet.sock"
OWN_SOCKET = "/var/lib/kubelet/device-plugins/windriver.com-isolcpus.sock"

# A kubelet that crashes after it has removed the plugins' sockets and bound its own.
CRASHING = """\
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -IS -c 'import os, socket; \\
    os.chdir("/var/lib/kubelet/device-plugins"); \\
    [os.unlink(name) for name in os.listdir() if name.endswith(".sock")]; \\
    server = socket.socket(socket.AF_UNIX); server.bind("kubelet.sock"); server.listen(); \\
    os.abort()'
"""


@pytest.fixture(scope="module")
def guest_files() -> Sequence[Path]:
    return as_made()[:1]


@contextmanager
def drop_in(guest: Guest, unit: str, text: str) -> Iterator[None]:
    """Adds settings to a unit, and restarts it with them; restarts it without them at the end."""
    directory = f"/etc/systemd/system/{unit}.service.d"
    guest.run(
        f"mkdir -p {directory} && cat > {directory}/test.conf <<'END'\n{text}END\n"
        f"systemctl daemon-reload && systemctl restart {unit}"
    )
    yield
    guest.run(f"rm {directory}/test.conf; systemctl daemon-reload && systemctl restart {unit}")


def recreate_socket(guest: Guest) -> None:
    """Gives the kubelet's socket a new file with a new time; the kubelet's stream stays open.

    The pause is longer than that of a kubelet, so that the path unit sees the removal before the
    new file.
    """
    beside = "/var/lib/kubelet/.device-plugins.sock"
    guest.wait_until("test $(systemctl is-active isolcpus-dp-kubelet) = inactive")
    guest.run(f"rm {SOCKET}; touch {beside}; sleep 0.5; ln {beside} {SOCKET}")


def wait_for_main_process(guest: Guest, other_than: str) -> None:
    """Waits until another main process has started, and its worker has registered."""
    guest.wait_until(f"pid=$(cat {PIDFILE}) && test $pid != {other_than}", timeout=90)
    wait_for_registration(guest)
    wait_for_devices(guest)


def assert_path_unit_watches(guest: Guest) -> None:
    assert show(guest, "isolcpus-dp-kubelet.path", "ActiveState") == "active"


def test_killed_worker_is_replaced(guest: Guest) -> None:
    install(guest)
    start_kubelet(guest)
    wait_for_devices(guest)
    wait_for_registration(guest)
    main, before = main_process(guest), worker(guest)
    guest.run(f"kill -KILL {before}")
    wait_for_registration(guest, other_than=before)
    wait_for_devices(guest)
    assert main_process(guest) == main
    assert [entry["MESSAGE"] for entry in messages(guest, Event.FAILED)] == [
        "the worker was killed by SIGKILL; trying again, at intervals of up to 10 s"
    ]


def test_killed_main_process_takes_its_worker_with_it(guest: Guest) -> None:
    main, before = main_process(guest), worker(guest)
    guest.run(f"kill -KILL {main}")
    wait_for_main_process(guest, other_than=main)
    guest.run(f"test ! -e /proc/{before}")
    assert_path_unit_watches(guest)


def test_systemd_ends_a_worker_that_hangs(guest: Guest) -> None:
    with drop_in(guest, "isolcpus-dp", "[Service]\nWatchdogSec=5s\n"):
        wait_for_registration(guest)
        main, before = main_process(guest), worker(guest)
        guest.run(f"kill -STOP {before}")
        wait_for_main_process(guest, other_than=main)
        guest.run(f"test ! -e /proc/{before}")
        assert "Watchdog timeout (limit 5s)" in guest.journal("isolcpus-dp")
    wait_for_devices(guest)


@pytest.mark.parametrize("victim", ["main process", "worker"])
def test_service_is_started_again_after_the_oom_killer(guest: Guest, victim: str) -> None:
    """The limit is that of the service, and the killer must not choose its other process."""
    main, before = main_process(guest), worker(guest)
    killed, spared = (main, before) if victim == "main process" else (before, main)
    guest.run(f"echo -1000 > /proc/{spared}/oom_score_adj")
    guest.run("systemctl set-property --runtime isolcpus-dp MemoryMax=2M")
    guest.wait_until(f"journalctl --dmesg | grep 'out of memory: Killed process {killed} '")
    guest.wait_until(f"test ! -e /proc/{main} && test ! -e /proc/{before}")
    guest.run("systemctl set-property --runtime isolcpus-dp MemoryMax=infinity")
    wait_for_main_process(guest, other_than=main)
    assert "killed by the OOM killer" in guest.journal("isolcpus-dp")
    assert_path_unit_watches(guest)


def test_kubelet_has_its_devices_after_many_crashes(guest: Guest) -> None:
    main = main_process(guest)
    with drop_in(guest, "kubelet", CRASHING):
        crashes = times(10, full=50)
        guest.wait_until(
            f"test $(systemctl show -p NRestarts --value kubelet) -ge {crashes}", timeout=900
        )
        assert_path_unit_watches(guest)
    wait_for_devices(guest)
    assert main_process(guest) == main
    assert_path_unit_watches(guest)


def test_new_worker_registers_with_a_recreated_socket(guest: Guest) -> None:
    wait_for_registration(guest)
    main, before = main_process(guest), worker(guest)
    recreate_socket(guest)
    wait_for_registration(guest, other_than=before)
    wait_for_devices(guest)
    guest.wait_until("test $(systemctl is-active isolcpus-dp-kubelet) = inactive")
    assert main_process(guest) == main


def test_path_unit_restarts_a_daemon_that_misses_a_new_socket(guest: Guest) -> None:
    main, before = main_process(guest), worker(guest)
    guest.run("systemctl service-watchdogs no")  # it would restart the daemon as well, but later
    guest.run(f"kill -STOP {before}")
    recreate_socket(guest)
    wait_for_main_process(guest, other_than=main)
    guest.run("systemctl service-watchdogs yes")
    # A restart by Restart= would count.
    assert show(guest, "isolcpus-dp", "NRestarts") == "0"
    assert_path_unit_watches(guest)


def test_changed_mode_of_its_own_socket_has_no_effect(guest: Guest) -> None:
    guest.run("systemctl stop kubelet")
    guest.wait_until("systemctl show -p StatusText isolcpus-dp | grep Waiting")
    before = worker(guest)
    guest.run(f"chmod 644 {OWN_SOCKET}")
    guest.run("systemctl start kubelet")
    wait_for_devices(guest)
    assert worker(guest) == before
    # The worker removes the socket when it ends, and the next one binds it.
    guest.run(f"chmod 644 {OWN_SOCKET}")
    recreate_socket(guest)
    wait_for_registration(guest, other_than=before)
    wait_for_devices(guest)
    assert guest.run(f"stat -c %a {OWN_SOCKET}").stdout == "600\n"


def test_daemon_follows_a_file_system_that_is_mounted_over_the_directory(guest: Guest) -> None:
    main = main_process(guest)
    guest.run("systemctl stop kubelet && mount -t tmpfs tmpfs /var/lib/kubelet")
    guest.run("systemctl start kubelet")
    wait_for_devices(guest)
    # The daemon's socket keeps the file system in use.
    guest.run("systemctl stop kubelet && umount --lazy /var/lib/kubelet")
    guest.run("systemctl start kubelet")
    wait_for_devices(guest)
    assert main_process(guest) == main


def test_daemon_follows_a_directory_that_is_replaced_by_a_link(guest: Guest) -> None:
    def restarts() -> int:
        return int(show(guest, "isolcpus-dp", "NRestarts"))

    before = restarts()
    guest.run(
        "systemctl stop kubelet && mkdir -p /srv/kubelet\n"
        "mv /var/lib/kubelet /var/lib/kubelet.old && ln -s /srv/kubelet /var/lib/kubelet"
    )
    # The kubelet creates device-plugins in it, where the service's sandbox is read-only: the daemon
    # ends, and systemd sets up the sandbox again.
    guest.run("systemctl start kubelet")
    wait_for_devices(guest)
    assert restarts() == before + 1
    assert (
        "ending, so that systemd sets it up again" in messages(guest, Event.FAILED)[-1]["MESSAGE"]
    )
    wait_for_registration(guest)
    assert_path_unit_watches(guest)
    guest.run(
        "systemctl stop kubelet && rm /var/lib/kubelet\n"
        "mv /var/lib/kubelet.old /var/lib/kubelet && systemctl start kubelet"
    )
    wait_for_devices(guest)
    assert "Traceback" not in guest.journal("isolcpus-dp")
