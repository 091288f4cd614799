"""The device plugin under systemd: installation, restarts, reload, reboot, journal and removal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from isolcpus_dp.service.events import Event
from tests.packages.build import as_made

from .extent import times
from .guest import Guest
from .node import (
    RESOURCE,
    STATUS,
    install,
    main_process,
    messages,
    remove_kubelet,
    show,
    start_kubelet,
    status,
    wait_for_devices,
    wait_for_registration,
    worker,
)

DROP_IN = "/etc/isolcpus-dp/isolcpus-dp.conf.d/test.conf"

# All kinds of events that the tests of this module cause.
EXPECTED_EVENTS = (
    Event.STARTED,
    Event.WAITING,
    Event.REGISTERED,
    Event.KUBELET_LEFT,
    Event.DEVICES_CHANGED,
    Event.ALLOCATED,
    Event.STOPPED,
    Event.FAILED,
    Event.RELOADED,
    Event.RELOAD_FAILED,
)


@pytest.fixture(scope="module")
def guest_files() -> Sequence[Path]:
    return as_made()[:1]


def assert_path_unit_watches(guest: Guest) -> None:
    assert show(guest, "isolcpus-dp-kubelet.path", "ActiveState") == "active"


def assert_pidfile_names_the_daemon(guest: Guest) -> None:
    """The path is the one in the configuration of StarlingX's process monitor."""
    conf = "/usr/share/starlingx/pmon.d/isolcpus-dp.conf"
    pidfile = guest.run(f"sed -n 's/^pidfile = //p' {conf}").stdout.strip()
    assert guest.run(f"cat {pidfile}").stdout == f"{main_process(guest)}\n"
    assert guest.run(f"stat -c %a {pidfile}").stdout == "600\n"


def test_installation_starts_the_daemon_without_a_kubelet(guest: Guest) -> None:
    guest.run("test ! -e /var/lib/kubelet")
    install(guest)
    assert show(guest, "isolcpus-dp", "ActiveState") == "active"
    assert show(guest, "isolcpus-dp", "StatusText") == (
        f"Waiting for the kubelet to register {RESOURCE}: 4 devices, 0 unhealthy"
    )
    assert_path_unit_watches(guest)
    assert guest.run("systemctl is-enabled isolcpus-dp isolcpus-dp-kubelet.path").stdout == (
        "enabled\nenabled\n"
    )
    assert guest.run("stat -c %a /var/lib/kubelet/device-plugins/*.sock").stdout == "600\n"
    assert_pidfile_names_the_daemon(guest)


def test_kubelet_has_the_isolated_cpus_with_their_numa_nodes(guest: Guest) -> None:
    start_kubelet(guest)
    wait_for_devices(guest)
    assert status(guest)["devices"][RESOURCE] == {
        "2": ["Healthy", 0],
        "3": ["Healthy", 0],
        "6": ["Healthy", 1],
        "7": ["Healthy", 1],
    }
    guest.wait_until(
        "systemctl show -p StatusText isolcpus-dp |"
        f" grep -x 'StatusText=Registered {RESOURCE}: 4 devices, 0 unhealthy'"
    )


def test_daemon_uses_little_memory(guest: Guest, note: Callable[[str], None]) -> None:
    processes = main_process(guest), worker(guest)
    memory = {"Pss": 0, "Private_Dirty": 0}
    for pid in processes:
        for line in guest.run(f"cat /proc/{pid}/smaps_rollup").stdout.splitlines():
            name, _, size = line.partition(":")
            if name in memory:
                memory[name] += int(size.split()[0])
        assert "THP_enabled:\t0" in guest.run(f"cat /proc/{pid}/status").stdout
    note(
        "main process and worker under systemd: proportional"
        f" {memory['Pss']} kB, private dirty {memory['Private_Dirty']} kB"
    )
    assert memory["Pss"] <= 40 * 1024
    assert memory["Private_Dirty"] <= 18 * 1024


def test_daemon_runs_first_and_is_ended_last(guest: Guest) -> None:
    for pid in (main_process(guest), worker(guest)):
        assert guest.run(f"ps -o nice= -p {pid}").stdout.strip() == "-20"
        assert guest.run(f"cat /proc/{pid}/oom_score_adj").stdout == "-900\n"
    group = "/sys/fs/cgroup/system.slice/isolcpus-dp.service"
    assert guest.run(f"cat {group}/cpu.weight").stdout == "10000\n"


def test_pod_owns_both_threads_of_a_core(guest: Guest) -> None:
    guest.wait_until(f"grep Running {STATUS}", timeout=120)
    allocated = messages(guest, Event.ALLOCATED)
    assert [entry["CPU"] for entry in allocated] == ["2-3"]
    assert [entry["RESOURCE"] for entry in allocated] == [RESOURCE]


def test_kubelet_sees_a_cpu_go_offline_and_come_back(
    guest: Guest, note: Callable[[str], None]
) -> None:
    now = "date +%s%6N"
    offline = f"echo 0 > /sys/devices/system/cpu/cpu3/online && {now}"
    for health, unhealthy in (("Unhealthy", 1), ("Healthy", 0)):
        result = guest.run(offline) if unhealthy else guest.bring_online(3, then=now)
        switched = int(result.stdout)
        wait_for_devices(guest, healthy=4 - unhealthy)
        assert status(guest)["devices"][RESOURCE]["3"] == [health, 0]
        assert f"{unhealthy} unhealthy" in show(guest, "isolcpus-dp", "StatusText")
        seen = guest.run("journalctl -u kubelet -n 1 -o json --output-fields=MESSAGE").stdout
        after = (int(json.loads(seen)["__REALTIME_TIMESTAMP"]) - switched) / 1000
        note(f"cpu3 {health}: the kubelet logs it {after:.0f} ms after sysfs took it")


def test_kubelet_has_its_devices_after_each_restart(guest: Guest) -> None:
    main = main_process(guest)
    for _ in range(times(5, full=20)):
        guest.run("systemctl restart kubelet")
        wait_for_devices(guest)
    assert_path_unit_watches(guest)
    assert main_process(guest) == main
    assert_pidfile_names_the_daemon(guest)


def test_killed_kubelet_has_its_devices_after_the_restart(guest: Guest) -> None:
    before = show(guest, "kubelet", "MainPID")
    guest.run("systemctl kill --signal=SIGKILL kubelet")
    guest.wait_until(f"test $(systemctl show -p MainPID --value kubelet) != {before}")
    wait_for_devices(guest)
    assert_path_unit_watches(guest)


def test_daemon_does_not_start_with_a_wrong_configuration(guest: Guest) -> None:
    guest.run(f"printf '[Plugin]\\nCPUs=two\\n' > {DROP_IN}")
    assert guest.run("systemctl restart isolcpus-dp", check=False).status == 1
    assert show(guest, "isolcpus-dp", "ExecMainStatus") == "2"
    assert messages(guest, Event.FAILED)[-1]["MESSAGE"].startswith(
        f"{DROP_IN}: [Plugin] CPUs=two: 'two' is not a CPU number"
    )
    guest.run(f"rm {DROP_IN}; systemctl restart isolcpus-dp")
    wait_for_devices(guest)


def check_versions(guest: Guest) -> str:
    return guest.run("isolcpus-dp check --only versions", check=False).stdout


def test_reload_applies_a_changed_configuration(guest: Guest) -> None:
    main, before = main_process(guest), worker(guest)
    guest.run(f"printf '[Plugin]\\nGranularity=core\\n' > {DROP_IN}")
    assert "older configuration than that of the files" in " ".join(check_versions(guest).split())
    guest.run("systemctl reload isolcpus-dp")
    wait_for_registration(guest, other_than=before)
    wait_for_devices(guest, healthy=2)
    assert main_process(guest) == main
    assert check_versions(guest).endswith("1 ok\n")


def test_reload_of_a_wrong_configuration_fails_and_changes_nothing(guest: Guest) -> None:
    main, before = main_process(guest), worker(guest)
    guest.run(f"printf '[Plugin]\\nCPUs=two\\n' > {DROP_IN}")
    assert guest.run("systemctl reload isolcpus-dp", check=False).status == 1
    # The signal alone has the same effect.
    guest.run(f"kill -HUP {main}")
    guest.wait_until("journalctl -u isolcpus-dp | grep 'the earlier configuration stays in force'")
    for entry in messages(guest, Event.RELOAD_FAILED):
        assert entry["MESSAGE"].startswith(f"{DROP_IN}: [Plugin] CPUs=two: 'two' is not a CPU")
    assert show(guest, "isolcpus-dp", "ActiveState") == "active"
    assert (main_process(guest), worker(guest)) == (main, before)
    # The next kubelet gets the devices of the earlier configuration, too.
    guest.run("systemctl restart kubelet")
    wait_for_devices(guest, healthy=2)
    guest.run(f"rm {DROP_IN}; systemctl reload isolcpus-dp")
    wait_for_devices(guest)


def test_core_device_is_unhealthy_while_a_thread_is_offline(
    guest: Guest,
) -> None:
    online = "/sys/devices/system/cpu/cpu3/online"
    guest.run(f"printf '[Plugin]\\nGranularity=core\\n' > {DROP_IN}")
    guest.run("systemctl restart isolcpus-dp")
    wait_for_devices(guest, healthy=2)
    assert status(guest)["devices"][RESOURCE] == {"2": ["Healthy", 0], "6": ["Healthy", 1]}
    guest.run(f"echo 0 > {online}")
    wait_for_devices(guest, healthy=1)
    assert status(guest)["devices"][RESOURCE] == {"2": ["Unhealthy", 0], "6": ["Healthy", 1]}
    # A daemon that starts now has never seen the topology of CPU 3.
    guest.run("systemctl restart isolcpus-dp")
    guest.wait_until("systemctl show -p StatusText isolcpus-dp | grep Registered")
    wait_for_devices(guest, healthy=1)
    assert status(guest)["devices"][RESOURCE] == {"2": ["Unhealthy", 0], "6": ["Healthy", 1]}
    guest.bring_online(3)
    wait_for_devices(guest, healthy=2)
    guest.run(f"rm {DROP_IN}; systemctl restart isolcpus-dp")
    wait_for_devices(guest)


def test_reinstalled_package_restarts_the_daemon(guest: Guest) -> None:
    before = main_process(guest)
    guest.run(
        "apt-get install --yes --no-install-recommends --reinstall"
        " /mnt/files/isolcpus-dp_*_all.deb",
        timeout=600,
    )
    assert main_process(guest) not in (before, "0")
    wait_for_devices(guest)
    assert_path_unit_watches(guest)


def test_journal_has_an_entry_for_each_event(guest: Guest) -> None:
    for event in EXPECTED_EVENTS:
        assert messages(guest, event), f"no entry of {event}"
    registered = messages(guest, Event.REGISTERED)[0]
    assert registered["EVENT"] == "registered"
    assert registered["RESOURCE"] == RESOURCE
    assert registered["CPU"] == "2-3,6-7"
    assert registered["SYSLOG_IDENTIFIER"] == "isolcpus-dp"
    offline = messages(guest, Event.DEVICES_CHANGED)[0]
    assert (offline["CPU"], offline["MESSAGE"]) == (
        "3",
        "CPU 3 is offline; reported to the kubelet",
    )
    journal = guest.run("journalctl -u isolcpus-dp -o cat").stdout
    assert f"registered {RESOURCE}: 4 devices, 0 unhealthy with the kubelet" in journal
    assert "Traceback" not in journal


def test_boot_takes_one_registration_and_no_restart(
    guest: Guest, note: Callable[[str], None]
) -> None:
    guest.reboot()
    wait_for_devices(guest)
    time.sleep(5)  # a wrong restart would be triggered by the new socket
    assert status(guest)["registrations"] == 1
    assert show(guest, "isolcpus-dp", "NRestarts") == "0"
    assert len(messages(guest, Event.STARTED)) == 1
    registered = messages(guest, Event.REGISTERED)
    assert len(registered) == 1
    guest.wait_until(f"grep Running {STATUS}", timeout=120)
    note(f"at boot: {registered[0]['MESSAGE']}")


def test_removal_and_purge_leave_no_file(guest: Guest) -> None:
    remove_kubelet(guest)
    guest.run("apt-get remove --yes isolcpus-dp", timeout=600)
    assert guest.run("systemctl is-active isolcpus-dp", check=False).stdout == "inactive\n"
    guest.run("test -e /etc/isolcpus-dp/isolcpus-dp.conf -a ! -e /run/isolcpus-dp")
    guest.run("rm -r /var/lib/kubelet")  # it belongs to the kubelet
    guest.run("apt-get purge --yes isolcpus-dp; systemctl daemon-reload", timeout=600)
    assert (
        guest.run(
            "find / -xdev -path /proc -prune -o -path /var/log -prune -o"
            " -iname '*isolcpus*' -not -path '/mnt/*' -print; find /run -name '*isolcpus*'"
        ).stdout
        == ""
    )
    assert guest.run("systemctl list-units --all --plain --no-legend 'isolcpus*'").stdout == ""
