"""A guest with both packages and a container runtime: the containers that tests create in it."""

from __future__ import annotations

from .guest import Guest
from .runtime import Container, Pod

PIN = "isolcpus-dp-pin"

OWNER = Container("owner", devices=("2", "3"))
PLAIN = Container("plain")
GUARANTEED = Container("guaranteed", cpus="0-3")
# The author of a pod controls its environment and its annotations. This one writes what an owner
# has, in the places that the daemon must not trust.
FORGER = Container("forger", environment={"ISOLCPUS": "2-3", "WINDRIVER_COM_ISOLCPUS": "2-3"})
FORGED = {"windriver.com/isolcpus": "2-3"}

# The CPUs of these containers.
EXPECTED = {"owner": "2-3", "plain": "0-1,4-5", "guaranteed": "0-1", "forger": "0-1,4-5"}


def mixed_pod(name: str) -> Pod:
    return Pod(name, [OWNER, PLAIN, GUARANTEED, FORGER], annotations=FORGED)


def install(guest: Guest) -> None:
    """Installs both packages, and waits until the daemon is connected to the runtime."""
    guest.run(
        "apt-get install --yes --no-install-recommends /mnt/files/isolcpus-dp*_all.deb", timeout=600
    )
    assert guest.run(f"systemctl is-active isolcpus-dp {PIN}").stdout == "active\nactive\n"
    wait_for_connection(guest)


def wait_for_connection(guest: Guest) -> None:
    guest.wait_until(f"systemctl show --property=StatusText {PIN} | grep 'Connected to containerd'")


def wait_for_new_connection(guest: Guest, online: str) -> None:
    """Waits until the daemon has connected again because these CPUs are online.

    That is some time after the change; until then, its status is the old one.
    """
    guest.wait_until(
        f"journalctl --unit={PIN} --output=cat | sed -n '/online CPUs are now {online};/,$p' |"
        " grep 'containers: updating'"
    )
    wait_for_connection(guest)


def throttled(guest: Guest, cgroup: str) -> int:
    return int(guest.run(f"sed -n 's/^nr_throttled //p' {cgroup}/cpu.stat").stdout)


def quota(guest: Guest, cgroup: str) -> str:
    return guest.run(f"cat {cgroup}/cpu.max").stdout.strip()
