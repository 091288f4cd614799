"""Status, map, check, metrics and the journal on a host with faults.

The host is misconfigured on purpose: isolcpus= lacks CPU 7, but contains its sibling. The tests add
more faults, check that they are found, and fix them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from isolcpus_dp.service.events import Event
from tests.packages.build import as_made

from .guest import Guest
from .node import RESOURCE, check, start_kubelet, wait_for_devices, wait_for_metric

HOUSEKEEPING = "0-1,4-5,7"
SERIAL = 4  # the interrupt of the first serial port, which is the guest's console

# The drop-in that metrics on an address need, as in isolcpus-dp.conf(5).
NETWORK = """\
[Service]
PrivateNetwork=no
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6
IPAddressAllow=localhost
"""


@pytest.fixture(scope="module")
def arguments() -> str:
    return "isolcpus=nohz,domain,managed_irq,2-3,6 nohz_full=2-3,6"


@pytest.fixture(scope="module")
def guest_files() -> Sequence[Path]:
    return as_made()


def status(guest: Guest, user: str = "root") -> tuple[int, dict[str, Any]]:
    result = guest.run(f"runuser -u {user} -- isolcpus-dp status --json", check=False)
    return result.status, json.loads(result.stdout)


def test_status_fails_without_a_kubelet(guest: Guest) -> None:
    guest.run(
        "apt-get install --yes --no-install-recommends /mnt/files/isolcpus-dp*_all.deb",
        timeout=600,
    )
    exit_status, found = status(guest)
    assert (exit_status, found["registered"], found["well"]) == (1, False, False)
    assert found["pools"][0]["cpus"] == {
        "isolated": "2-3,6",
        "healthy": "2-3,6",
        "allocated": None,
        "free": None,
    }
    assert found["unseen"] == [
        "CPU owners: /var/lib/kubelet/pod-resources/kubelet.sock does not exist:"
        " is the kubelet running? If its root directory is another one, set RootDirectory= in"
        " [Kubelet], see isolcpus-dp.conf(5)"
    ]


def test_status_lists_the_owners_of_cpus(guest: Guest) -> None:
    start_kubelet(guest)
    wait_for_devices(guest, healthy=3)
    guest.wait_until("isolcpus-dp status | grep forwarder", timeout=120)
    exit_status, found = status(guest)
    assert (exit_status, found["registered"], found["unseen"]) == (0, True, [])
    assert found["allocations"] == [
        {
            "resource": RESOURCE,
            "namespace": "default",
            "pod": "forwarder",
            "container": "main",
            "cpus": "2-3",
        }
    ]
    assert (found["pools"][0]["cpus"]["allocated"], found["pools"][0]["cpus"]["free"]) == (
        "2-3",
        "6",
    )


def test_status_without_root_lists_what_is_missing(guest: Guest) -> None:
    exit_status, found = status(guest, user="nobody")
    assert (exit_status, found["registered"], found["allocations"]) == (0, True, [])
    [unseen] = found["unseen"]
    assert unseen.endswith("pod-resources/kubelet.sock is readable by root only: run this as root")


def test_map_draws_the_host(guest: Guest) -> None:
    drawn = guest.run("isolcpus-dp map").stdout
    for row in ("│ │ . 0  A 2         │ │", "│ │ . 4  o 6         │ │", "│ │ . 5  . 7         │ │"):
        assert row in drawn
    assert "A  default/forwarder/main" in drawn
    guest.run("isolcpus-dp map --svg /root/host.svg")
    assert "default/forwarder/main" in guest.run("cat /root/host.svg").stdout


def test_watched_map_shows_a_cpu_that_goes_offline(guest: Guest) -> None:
    # Redirected, because the agent waits until the output streams of a command are closed.
    guest.run("isolcpus-dp map --watch > /root/watched 2>&1 </dev/null & echo $! > /root/watching")
    guest.wait_until("grep 'A  default/forwarder/main' /root/watched")
    guest.run("echo 0 > /sys/devices/system/cpu/cpu3/online")
    guest.wait_until("grep 'x  offline *3' /root/watched")
    guest.bring_online(3)
    guest.run("kill $(cat /root/watching)")


def test_check_finds_a_sibling_that_is_not_isolated(guest: Guest) -> None:
    assert check(guest, "smt-siblings") == {
        "smt-siblings": ("problem", "core 6-7 is only partly isolated")
    }


def test_check_finds_no_problem_with_the_kernel_arguments(guest: Guest) -> None:
    found = check(guest, "kernel-arguments", "nohz-full", "rcu-nocbs", "workqueues", "versions")
    assert {verdict for verdict, _ in found.values()} == {"ok"}


def test_check_finds_that_containers_are_not_pinned(guest: Guest) -> None:
    found = check(guest, "nri", "pin-daemon")
    assert found["nri"] == (
        "problem",
        "no process listens on /var/run/nri/nri.sock: containers are not pinned",
    )
    assert found["pin-daemon"][0] == "problem"


def test_check_finds_an_interrupt_on_an_isolated_cpu(guest: Guest) -> None:
    # Follow the advice of the check: move the interrupts off the isolated CPUs. This fails for
    # those that the kernel manages itself.
    guest.run(
        f"for irq in /proc/irq/*/; do echo {HOUSEKEEPING} > $irq/smp_affinity_list; done; true"
        " 2>/dev/null"
    )
    guest.run("echo b3 > /proc/irq/default_smp_affinity")
    assert check(guest, "irq-affinity")["irq-affinity"][0] == "ok"

    guest.run(f"echo 3 > /proc/irq/{SERIAL}/smp_affinity_list")
    guest.run("echo something for the console > /dev/ttyS0")
    assert check(guest, "irq-affinity")["irq-affinity"] == (
        "warning",
        f"interrupts that may fire on isolated CPUs: {SERIAL} (ttyS0) on CPU 3",
    )
    guest.run(
        "while sleep 0.5; do echo more > /dev/ttyS0; done >/dev/null 2>&1 & echo $! > /run/it"
    )
    verdict, evidence = check(guest, "irq-counts", options="--interval 3")["irq-counts"]
    guest.run("kill $(cat /run/it)")
    assert verdict == "problem"
    assert f"{SERIAL} (ttyS0)" in evidence
    assert evidence.endswith("times on CPU 3")

    guest.run(f"echo {HOUSEKEEPING} > /proc/irq/{SERIAL}/smp_affinity_list")
    assert check(guest, "irq-affinity")["irq-affinity"][0] == "ok"


def test_check_finds_a_busy_loop_on_an_isolated_cpu(guest: Guest) -> None:
    guest.run(
        "systemd-run --unit=busy --property=CPUAffinity=6 sh -c 'while :; do :; done' 2>/dev/null"
    )
    pid = guest.run("systemctl show --property=MainPID --value busy").stdout.strip()
    guest.wait_until(f"test $(cut -d ' ' -f 39 /proc/{pid}/stat) = 6")
    assert check(guest, "foreign-processes")["foreign-processes"] == (
        "problem",
        f"ran on isolated CPUs: sh (process {pid}), allowed on CPU 6",
    )
    guest.run(f"taskset -apc {HOUSEKEEPING} {pid}")
    assert check(guest, "foreign-processes")["foreign-processes"][0] == "ok"
    guest.run("systemctl stop busy")


def test_check_finds_cpus_that_the_kubelet_does_not_reserve(guest: Guest) -> None:
    guest.run(
        "cat > /var/lib/kubelet/config.yaml <<'END'\n"
        'reservedSystemCPUs: "0,2-3"\ncpuManagerPolicy: static\nEND'
    )
    found = check(guest, "reserved-cpus", "cpu-manager", "topology-manager")
    assert found["reserved-cpus"][0] == "problem"
    assert "6" in found["reserved-cpus"][1]
    assert found["topology-manager"][0] == "warning"


def test_check_exits_by_its_verdicts_and_changes_nothing(guest: Guest) -> None:
    """strace records the files and affinities that the check and its processes change."""
    calls = "openat,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,sched_setaffinity"
    result = guest.run(
        f"strace -f --seccomp-bpf -e trace={calls} -o /root/trace isolcpus-dp check",
        check=False,
        timeout=300,
    )
    assert result.status == 1
    assert "smt-siblings       problem" in result.stdout
    opened = guest.run("grep -c 'openat(.*\"/proc/interrupts\", O_RDONLY' /root/trace").stdout
    assert int(opened) >= 2, "the counts before and after the interval"
    changes = r"O_WRONLY|O_RDWR|O_CREAT|(unlink|rename|mkdir)(at2?)?\(|sched_setaffinity\("
    # awk, unlike grep, exits with status 0 if no line matches.
    changed = guest.run(f"awk '/{changes}/ && !/\\/dev\\/null|ENOENT/' /root/trace").stdout
    assert changed == ""


@pytest.mark.parametrize(
    ("listen", "drop_in", "where"),
    [
        ("/run/isolcpus-dp/metrics.sock", "", "/run/isolcpus-dp/metrics.sock"),
        ("127.0.0.1:9497", NETWORK, "9497"),
    ],
    ids=["unix", "tcp"],
)
def test_sandboxed_daemon_serves_metrics(
    guest: Guest, listen: str, drop_in: str, where: str
) -> None:
    conf = "/etc/isolcpus-dp/isolcpus-dp.conf.d/50-metrics.conf"
    unit = "/etc/systemd/system/isolcpus-dp.service.d/metrics.conf"
    guest.run(
        f"mkdir -p $(dirname {unit})\n"
        f"printf '[Metrics]\\nListen={listen}\\n' > {conf}\n"
        f"cat > {unit} <<'END'\n{drop_in}\nEND\n"
        "systemctl daemon-reload; systemctl restart isolcpus-dp"
    )
    wait_for_devices(guest, healthy=3)
    if where.startswith("/"):
        assert guest.run(f"stat -c '%A %U' {where}").stdout == "srw------- root\n"
    wait_for_metric(guest, where, f'isolcpus_dp_cpus{{resource="{RESOURCE}",state="healthy"}} 3.0')
    wait_for_metric(guest, where, f'isolcpus_dp_allocated_cpus{{resource="{RESOURCE}"}} 2.0')
    guest.run(f"rm {conf} {unit}; systemctl daemon-reload; systemctl restart isolcpus-dp")


def test_metrics_address_without_the_drop_in_is_an_error(
    guest: Guest,
) -> None:
    conf = "/etc/isolcpus-dp/isolcpus-dp.conf.d/50-metrics.conf"
    guest.run(
        f"printf '[Metrics]\\nListen=127.0.0.1:9497\\n' > {conf}; systemctl restart isolcpus-dp"
    )
    wait_for_devices(guest, healthy=3)
    errors = guest.run(
        "journalctl --sync && journalctl --priority=err --output=cat"
        " _SYSTEMD_INVOCATION_ID=$(systemctl show --property=InvocationID --value isolcpus-dp)"
    ).stdout
    assert errors.startswith("[Metrics] Listen=: cannot listen on it: Address family not supported")
    for line in NETWORK.splitlines()[1:]:
        assert line in errors
    guest.run(f"rm {conf}; systemctl restart isolcpus-dp")


def test_journal_catalog_explains_each_event(guest: Guest) -> None:
    explained = guest.run(
        f"journalctl --boot --catalog --no-pager MESSAGE_ID={Event.REGISTERED.message_id}"
    ).stdout
    assert "Subject: The kubelet has accepted the registration" in explained
    for event in Event:
        entry = guest.run(f"journalctl --dump-catalog {event.message_id}").stdout
        assert "Defined-By: isolcpus-dp" in entry, event
