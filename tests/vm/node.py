"""A guest as a node: runs the simulated kubelet as kubelet.service, and reads its state.

The kubelet admits pods when their devices are reported, not 60 ms after it has created its socket,
because emulated CPUs are slow. `test_admission` has a kubelet that does not wait.
"""

from __future__ import annotations

import json
from typing import Any

from isolcpus_dp.service.events import Event

from .guest import Guest

RESOURCE = "windriver.com/isolcpus"
STATUS = "/var/lib/kubelet/node-status.json"
CGROUP = "/sys/fs/cgroup/system.slice/kubelet.service"
PIDFILE = "/run/isolcpus-dp/isolcpus-dp.pid"

_SCRAPE = """\
import socket, sys
where = sys.argv[1]
kind = socket.AF_UNIX if where.startswith("/") else socket.AF_INET
connection = socket.socket(kind)
connection.connect(where if kind == socket.AF_UNIX else ("127.0.0.1", int(where)))
connection.send(b"GET /metrics HTTP/1.1\\r\\n\\r\\n")
print(connection.makefile().read())
"""

_KUBELET = """\
[Unit]
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/bin/python3 -m isolcpus_dp.simulator --pod forwarder=2
Restart=always
RestartSec=300ms
[Install]
WantedBy=multi-user.target
"""


def start_kubelet(guest: Guest) -> None:
    """Enables and starts the kubelet. The package must be installed: it contains the simulator."""
    guest.run(f"cat > /etc/systemd/system/kubelet.service <<'END'\n{_KUBELET}\nEND")
    guest.run("systemctl daemon-reload && systemctl enable --now kubelet")


def remove_kubelet(guest: Guest) -> None:
    guest.run("systemctl disable --now kubelet; rm -r /etc/systemd/system/kubelet.service")


def install(guest: Guest) -> None:
    """Installs the package of the device plugin from the disk with the files."""
    guest.run(
        "apt-get install --yes --no-install-recommends /mnt/files/isolcpus-dp_*_all.deb",
        timeout=600,
    )


def show(guest: Guest, unit: str, name: str) -> str:
    """Returns a property of a unit."""
    return guest.run(f"systemctl show --property={name} --value {unit}").stdout.strip()


def main_process(guest: Guest) -> str:
    """Returns the process ID of the device plugin's main process."""
    return show(guest, "isolcpus-dp", "MainPID")


def worker(guest: Guest) -> str:
    """Returns the process ID of the device plugin's worker."""
    return guest.run(f"pgrep --parent {main_process(guest)}").stdout.strip()


def wait_for_registration(guest: Guest, other_than: str = "") -> None:
    """Waits until a worker with another process ID is registered.

    The main process removes the mark of a registration before it forks the next worker.
    """
    guest.wait_until(
        f"pid=$(pgrep --parent $(cat {PIDFILE})) && test $pid != '{other_than}'"
        " && test -e /run/isolcpus-dp/registered",
        timeout=90,
    )


def status(guest: Guest) -> dict[str, Any]:
    """Returns what the kubelet would report to the API server, and the health of each device."""
    reported: dict[str, Any] = json.loads(guest.run(f"cat {STATUS}").stdout)
    return reported


def wait_for_devices(guest: Guest, healthy: int = 4) -> None:
    """Waits until the kubelet that runs now has `healthy` healthy devices.

    Does not ask systemd for the process: repeated calls of systemctl slow down the guest.
    """
    guest.wait_until(
        f'echo "$(<{STATUS})"; read -r pid < {CGROUP}/cgroup.procs && '
        f'grep -q "\\"pid\\": $pid," {STATUS} && '
        f"grep -q 'allocatable.*{RESOURCE}\": {healthy}}}.*devices' {STATUS}",
        timeout=90,
    )


def messages(guest: Guest, event: Event) -> list[dict[str, str]]:
    """Returns the daemons' journal entries for an event in this boot, after a journal sync."""
    query = f"journalctl -b -o json MESSAGE_ID={event.message_id}"
    found = guest.run(f"journalctl --sync && {query}").stdout
    return [json.loads(line) for line in found.splitlines()]


def wait_for_metric(guest: Guest, where: str, line: str) -> None:
    """Waits until the metrics have a line; `where` is the path of their socket, or their port.

    The daemon may answer without allocations: on emulated CPUs, the kubelet may take too long.
    """
    guest.wait_until(f"python3 -c '{_SCRAPE}' {where} | grep -xF '{line}'")


def check(guest: Guest, *ids: str, options: str = "") -> dict[str, tuple[str, str]]:
    """Returns the verdict and the evidence of the checks `ids`, by default of all checks."""
    only = " ".join(f"--only {name}" for name in ids)
    result = guest.run(f"isolcpus-dp check --json {only} {options}", check=False)
    found = json.loads(result.stdout)
    assert result.status == (0 if found["worst"] == "ok" else 1)
    return {one["id"]: (one["verdict"], one["evidence"]) for one in found["checks"]}
