"""Hosts that differ from the usual: daemons of other users, other directories, SMT that is off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.packages.build import as_made

from .guest import Guest
from .node import (
    RESOURCE,
    STATUS,
    check,
    install,
    start_kubelet,
    status,
    wait_for_devices,
    wait_for_metric,
    wait_for_registration,
    worker,
)

CONF = "/etc/isolcpus-dp/isolcpus-dp.conf.d/test.conf"
UNITS = "/etc/systemd/system"
SMT = "/sys/devices/system/cpu/smt/control"

# Programs with the names of daemons, and with settings that look right.
IMITATIONS = """\
install -d -o {user} /srv/{user}
echo 'reservedSystemCPUs: "0,2-3,6-7"' > /srv/{user}/config.yaml
for name in kubelet irqbalance; do
    printf '#!/bin/sh\\nsleep infinity\\n' > /srv/{user}/$name
    chmod 755 /srv/{user}/$name
    systemd-run --quiet --unit={user}-$name --uid={user} \\
        --setenv=IRQBALANCE_BANNED_CPULIST=2-3,6-7 \\
        /srv/{user}/$name --config=/srv/{user}/config.yaml
done
chown {user} /srv/{user}/*
"""

# The simulated kubelet, with an argument that only others read: it has no such option.
ROOT_DIR = """\
[Service]
ExecStart=
ExecStart=/usr/bin/python3 -c 'import runpy, sys; sys.argv[1:] = ["--pod", "forwarder=2"]; \\
    runpy.run_module("isolcpus_dp.simulator", run_name="__main__")' --root-dir=/srv/k0s
"""

METRICS = "[Metrics]\nListen=/run/isolcpus-dp/metrics.sock\n"

HIDDEN = (
    "/var/lib/kubelet is a link to /home/kubelet, which ProtectHome= of the unit hides:"
    " set ProtectHome=no in [Service] of a drop-in (systemctl edit isolcpus-dp) and restart it"
)


@pytest.fixture(scope="module")
def guest_files() -> Sequence[Path]:
    return as_made()[:1]


def write(guest: Guest, file: str, text: str) -> None:
    guest.run(f"mkdir -p $(dirname {file}) && cat > {file} <<'END'\n{text}END")


def test_daemons_of_other_users_are_not_trusted(guest: Guest) -> None:
    install(guest)

    def start_imitations(user: str) -> dict[str, tuple[str, str]]:
        guest.run(IMITATIONS.format(user=user))
        guest.wait_until(f"pgrep -u {user} -x kubelet && pgrep -u {user} -x irqbalance")
        return check(guest, "reserved-cpus", "irqbalance")

    found = start_imitations("nobody")
    assert found["reserved-cpus"][0] == "unknown"
    assert found["irqbalance"] == ("ok", "irqbalance is not running")
    # The same programs of root are what they claim to be.
    assert start_imitations("root") == {
        "reserved-cpus": (
            "ok",
            "reservedSystemCPUs is 0,2-3,6-7; no isolated CPU is missing",
        ),
        "irqbalance": ("ok", "irqbalance is running and is banned from CPU 2-3,6-7"),
    }
    guest.run("systemctl stop {nobody,root}-{kubelet,irqbalance}")


def test_sandboxed_daemon_finds_the_root_directory_of_the_kubelet(guest: Guest) -> None:
    drop_in = f"{UNITS}/kubelet.service.d/root-dir.conf"
    write(guest, drop_in, ROOT_DIR)
    write(guest, CONF, METRICS)
    start_kubelet(guest)
    guest.run("systemctl restart isolcpus-dp")
    wait_for_devices(guest)
    guest.wait_until(f"grep Running {STATUS}", timeout=120)
    # The simulated kubelet has all in one directory; its socket works in any.
    guest.run("mkdir /srv/k0s /srv/other && mv /var/lib/kubelet/pod-resources /srv/k0s")
    wait_for_registration(guest)
    allocated = f'isolcpus_dp_allocated_cpus{{resource="{RESOURCE}"}} 2.0'
    wait_for_metric(guest, "/run/isolcpus-dp/metrics.sock", allocated)
    guest.wait_until("isolcpus-dp status | grep default/forwarder/main")

    before = worker(guest)
    guest.run("mv /srv/k0s/pod-resources /srv/other")
    write(guest, CONF, f"{METRICS}[Kubelet]\nRootDirectory=/srv/other\n")
    guest.run("systemctl reload isolcpus-dp")
    wait_for_registration(guest, other_than=before)
    wait_for_metric(guest, "/run/isolcpus-dp/metrics.sock", allocated)
    guest.wait_until("isolcpus-dp status | grep default/forwarder/main")

    before = worker(guest)
    guest.run(f"rm {CONF} {drop_in}; systemctl daemon-reload; systemctl reload isolcpus-dp")
    wait_for_registration(guest, other_than=before)
    guest.run("systemctl restart kubelet")
    wait_for_devices(guest)


def test_second_threads_are_not_offered_while_smt_is_off(guest: Guest) -> None:
    guest.run(f"echo off > {SMT}")
    guest.wait_until(f"cat {STATUS}; ! grep '\"[37]\": \\[' {STATUS}")
    assert status(guest)["devices"][RESOURCE] == {"2": ["Healthy", 0], "6": ["Healthy", 1]}
    found = json.loads(guest.run("isolcpus-dp status --json").stdout)
    assert found["well"] is True
    [pool] = found["pools"]
    assert pool["cpus"] == {"isolated": "2,6", "healthy": "2,6", "allocated": "2", "free": "6"}
    assert pool["unknown"] == ["3"]  # the pod has had it before
    assert pool["warnings"] == [
        "CPU 3,7 is offline because SMT is off, and is not offered until it comes online"
    ]
    guest.run(f"echo on > {SMT} || echo on > {SMT}", timeout=120)
    wait_for_devices(guest)
    assert guest.run("cat /sys/devices/system/cpu/online").stdout == "0-7\n"


def test_directory_that_protect_home_hides_is_reported(guest: Guest) -> None:
    drop_in = f"{UNITS}/isolcpus-dp.service.d/home.conf"
    guest.run(
        "systemctl stop kubelet isolcpus-dp\n"
        "mv /var/lib/kubelet /home/kubelet && ln -s /home/kubelet /var/lib/kubelet\n"
        "systemctl start kubelet isolcpus-dp"
    )
    guest.wait_until(f"systemctl show -p StatusText isolcpus-dp | grep -F '{HIDDEN}'")
    guest.wait_until(f"journalctl --boot --unit=isolcpus-dp --output=cat | grep -F '{HIDDEN}'")
    # The advice works.
    write(guest, drop_in, "[Service]\nProtectHome=no\n")
    guest.run("systemctl daemon-reload && systemctl restart isolcpus-dp")
    wait_for_registration(guest)
    wait_for_devices(guest)
    assert "Traceback" not in guest.journal("isolcpus-dp")
