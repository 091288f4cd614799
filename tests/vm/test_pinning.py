"""Pinning with a real container runtime: creates containers, causes faults, and checks their CPUs.

`pods` acts as the kubelet in the guest, with the annotations and variables that Allocate of the
installed plugin returns. Debian 13 has containerd 1.7; forky has 2.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.packages.build import as_made

from . import pinning, runtime
from .extent import in_full_run, times
from .guest import Guest
from .pinning import (
    EXPECTED,
    PIN,
    PLAIN,
    mixed_pod,
    wait_for_connection,
    wait_for_new_connection,
)
from .recipe import FORKY, TRIXIE, Recipe
from .runtime import Container, Pod, Running, Runtime, assert_cpus, wait_for_cpus

on_both = pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(TRIXIE, id="trixie-containerd-1.7"),
        pytest.param(FORKY, id="forky-containerd-2.1", marks=in_full_run),
    ],
    indirect=True,
)
on_debian_13 = pytest.mark.parametrize(
    "recipe", [TRIXIE], ids=["trixie-containerd-1.7"], indirect=True
)


@pytest.fixture(scope="module")
def recipe(request: pytest.FixtureRequest) -> Recipe:
    chosen: Recipe = request.param
    return chosen


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return [*as_made(), *runtime.files(tmp_path_factory.mktemp("runtime"))]


@pytest.fixture(scope="module")
def containerd(guest: Guest) -> Runtime:
    started = Runtime(guest)
    started.start()
    return started


@pytest.fixture(scope="module")
def first_containers(guest: Guest) -> dict[str, Running]:
    """The containers of the first pod; a test fills it, and later tests use it."""
    return {}


def pid_of_daemon(guest: Guest) -> int:
    return int(guest.run(f"systemctl show --property=MainPID --value {PIN}").stdout)


def keep_host_off(guest: Guest) -> None:
    """Keeps services off the isolated CPUs, as docs/runtime.md recommends.

    The runtime's unit enables the cpuset controller, so all services may run on all CPUs: the
    runtime, the commands of the tests and, once a CPU was offline, systemd itself.
    """
    for part in ("init.scope", "system.slice"):
        guest.run(f"systemctl set-property --runtime {part} AllowedCPUs=0-1,4-5")


def ticks(guest: Guest) -> dict[int, int]:
    """Returns the time that each CPU has run programs since the boot, in units of 10 ms.

    Busy CPUs lose ticks if the host has fewer CPUs than the guest.
    """
    stat = guest.run("cat /proc/stat").stdout
    return {
        int(cpu): int(user) + int(nice)
        for cpu, user, nice in re.findall(r"^cpu(\d+) (\d+) (\d+)", stat, re.MULTILINE)
    }


def cpus_seen(guest: Guest, pod: str, name: str) -> dict[str, list[int]]:
    """Returns the CPUs that each thread of a busy container has run on, in order."""
    seen: dict[str, list[int]] = {}
    for line in guest.run(f"cat /var/log/pods/{pod}/{name}.log").stdout.splitlines():
        thread, cpu = line.split()[-2:]
        seen.setdefault(thread, []).append(int(cpu))
    return seen


def seconds_run(guest: Guest, container: Running) -> float:
    """Returns the CPU time of a container, by the guest's clock."""
    usec = guest.run(f"sed -n 's/^usage_usec //p' {container.cgroup}/cpu.stat").stdout
    return int(usec) / 1e6


@on_both
def test_installation_connects_the_daemon_to_the_runtime(guest: Guest, containerd: Runtime) -> None:
    pinning.install(guest)


@on_both
def test_containers_start_on_their_cpus(
    guest: Guest, containerd: Runtime, first_containers: dict[str, Running]
) -> None:
    first_containers.update(containerd.run(mixed_pod("first")))
    at_start = {name: f"{found.allowed} {found.cpuset}" for name, found in first_containers.items()}
    assert at_start == {name: f"{cpus} {cpus}" for name, cpus in EXPECTED.items()}
    assert_cpus(guest, first_containers, EXPECTED)


@on_both
def test_daemon_pins_containers_created_while_it_was_stopped(
    guest: Guest, containerd: Runtime, first_containers: dict[str, Running]
) -> None:
    guest.run(f"systemctl stop {PIN}")
    late = containerd.run(mixed_pod("late"))
    assert {name: found.allowed for name, found in late.items()} == {
        "owner": "0-7",
        "plain": "0-7",
        "guaranteed": "0-3",
        "forger": "0-7",
    }
    guest.run(f"systemctl start {PIN}")
    wait_for_cpus(guest, late, EXPECTED)
    assert_cpus(guest, first_containers, EXPECTED)


@on_both
def test_daemon_reconnects_to_a_restarted_runtime(
    guest: Guest, containerd: Runtime, first_containers: dict[str, Running]
) -> None:
    guest.run("systemctl restart containerd")
    # Immediately, as a kubelet would: the daemon may not be connected yet.
    after = containerd.run(mixed_pod("after"))
    wait_for_cpus(guest, after, EXPECTED)
    assert_cpus(guest, first_containers, EXPECTED)


@on_both
def test_kubelet_cannot_add_isolated_cpus_to_a_cpuset(
    guest: Guest, containerd: Runtime, first_containers: dict[str, Running]
) -> None:
    containerd.update(
        "0-7", {name: first_containers[name] for name in ("owner", "plain", "forger")}
    )
    assert_cpus(guest, first_containers, EXPECTED)
    containerd.update("0-6", {"guaranteed": first_containers["guaranteed"]})
    assert_cpus(guest, first_containers, {**EXPECTED, "guaranteed": "0-1,4-5"})


@on_both
def test_container_gets_a_shared_cpu_that_comes_online(guest: Guest, containerd: Runtime) -> None:
    guest.run("echo 0 > /sys/devices/system/cpu/cpu5/online")
    wait_for_new_connection(guest, "0-4,6-7")
    meanwhile = containerd.run(Pod("meanwhile", [PLAIN]))
    assert meanwhile["plain"].allowed == "0-1,4"
    guest.bring_online(5)
    wait_for_new_connection(guest, "0-7")
    wait_for_cpus(guest, meanwhile, {"plain": "0-1,4-5"})
    containerd.remove(meanwhile)


@on_debian_13
def test_daemon_killed_during_creations_pins_after_its_restart(
    guest: Guest, containerd: Runtime, first_containers: dict[str, Running]
) -> None:
    before = pid_of_daemon(guest)
    orphans = containerd.run_while_it_dies(before, mixed_pod("orphans"))
    wait_for_cpus(guest, orphans, EXPECTED)
    assert pid_of_daemon(guest) not in (before, 0)
    assert_cpus(guest, first_containers, {**EXPECTED, "guaranteed": "0-1,4-5"})


@on_debian_13
def test_busy_container_does_not_disturb_an_owner(
    guest: Guest, containerd: Runtime, note: Callable[[str], None]
) -> None:
    keep_host_off(guest)  # its use of the isolated CPUs would be counted too
    owner = Container("busy-owner", devices=("2", "3"), threads=1)
    wait_for_connection(guest)
    busy = containerd.run(Pod("busy", [owner, Container("busy-plain", threads=8)]))
    before, began = ticks(guest), [seconds_run(guest, one) for one in busy.values()]
    guest.run("sleep 10")
    used = {cpu: after - before[cpu] for cpu, after in ticks(guest).items()}
    ran = [seconds_run(guest, one) - start for one, start in zip(busy.values(), began)]
    assert_cpus(guest, busy, {"busy-owner": "2-3", "busy-plain": "0-1,4-5"})
    containerd.remove(busy)
    owners, plain = (cpus_seen(guest, "busy", name) for name in busy)
    note(f"ticks of 10 s, by CPU: {used}; owner and others ran {ran} s")

    assert owners in ({"0": [2]}, {"0": [3]})
    assert used[owners["0"][0]] > 100
    assert len(plain) == 8
    assert {cpu for cpus in plain.values() for cpu in cpus} == {0, 1, 4, 5}
    assert sum(used[cpu] for cpu in (0, 1, 4, 5)) > 400
    assert ran[0] > 5
    assert ran[1] > 10
    assert [used[cpu] for cpu in (2, 3, 6, 7) if [cpu] != owners["0"]] == [0, 0, 0]


@on_debian_13
def test_many_containers_start_on_their_cpus(
    guest: Guest,
    containerd: Runtime,
    first_containers: dict[str, Running],
    note: Callable[[str], None],
) -> None:
    number = times(80, full=200)
    seen = containerd.churn(number, mixed_pod("crowd"))
    assert len(seen) == number
    assert {(found["name"], found["planned"]) for found in seen} == set(EXPECTED.items())
    attempts = [found for found in seen if found["start"]]
    started = [found for found in attempts if "pid" in found]
    note(f"of {len(attempts)} containers that were started, {len(started)} were so in time")
    assert len(started) >= len(attempts) / 3 > 1
    assert {(found["name"], found["allowed"], found["cpuset"]) for found in started} <= {
        (name, cpus, cpus) for name, cpus in EXPECTED.items()
    }
    assert_cpus(guest, first_containers, {**EXPECTED, "guaranteed": "0-1,4-5"})


@on_both
def test_check_finds_the_daemon_and_a_foreign_container(
    guest: Guest, containerd: Runtime, first_containers: dict[str, Running]
) -> None:
    def check(*ids: str) -> list[tuple[str, str, str]]:
        only = " ".join(f"--only {name}" for name in ids)
        report = json.loads(guest.run(f"isolcpus-dp check --json {only}", check=False).stdout)
        return [(one["id"], one["verdict"], one["evidence"]) for one in report["checks"]]

    nri, daemon = check("nri", "pin-daemon")
    assert nri == ("nri", "ok", "the runtime listens on /var/run/nri/nri.sock")
    assert daemon[:2] == ("pin-daemon", "ok")
    assert daemon[2].startswith("Connected to containerd")

    keep_host_off(guest)  # its processes would be reported too, and first
    # Provide what a kubelet does: a list without CPU owners, and the name of this container.
    plain = first_containers["plain"]
    guest.run(
        "systemd-run --unit=kubelet python3 -m isolcpus_dp.simulator\n"
        "mkdir -p /var/log/containers\n"
        f"ln -s /nowhere /var/log/containers/first_default_plain-{plain.id}.log"
    )
    guest.wait_until("test -S /var/lib/kubelet/pod-resources/kubelet.sock")
    # A sleeping process moves only when it wakes up.
    guest.run(
        f"echo 6-7 > {plain.cgroup}/cpuset.cpus; kill -STOP {plain.pid}; kill -CONT {plain.pid}"
    )
    guest.wait_until(f"cut -d ' ' -f 39 /proc/{plain.pid}/stat | grep '[67]'")
    [(_, verdict, evidence)] = check("foreign-processes")
    guest.run(f"echo 0-1,4-5 > {plain.cgroup}/cpuset.cpus; systemctl stop kubelet")
    assert verdict == "problem"
    assert f"(process {plain.pid}) in default/first/plain, allowed on CPU 6-7" in evidence


@on_both
def test_journal_names_the_owner_of_the_cpus(guest: Guest) -> None:
    journal = guest.run(f"journalctl --boot --unit={PIN} --output=json").stdout
    entries = [json.loads(line) for line in journal.splitlines()]
    # One entry for the creation, and one for the attempt to widen the cpuset.
    pinned = [entry for entry in entries if entry.get("EVENT") == "pinned"]
    assert [
        (entry["POD"], entry["CONTAINER"], entry["CPU"])
        for entry in pinned
        if entry["POD"] == "default/first"
    ] == [("default/first", "owner", "2-3")] * 2
    assert not [entry for entry in entries if "Traceback" in str(entry["MESSAGE"])]
    assert not [entry for entry in entries if entry.get("EVENT") in ("undecided", "quota_kept")]
