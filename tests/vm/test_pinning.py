"""Pinning on a real container runtime: create containers, break things, see where they may run.

The kubelet's part is `pods`' in the guest, with the annotations and variables that the installed
plugin's own Allocate returns. Debian 13 has containerd 1.7, a newer Debian 2.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.packages.build import as_made

from . import runtime
from .guest import Guest
from .image import FORKY, TRIXIE, Recipe
from .runtime import Container, Pod, Running, Runtime, assert_cpus, wait_for_cpus

PIN = "isolcpus-dp-pin"

OWNER = Container("owner", devices=("2", "3"))
PLAIN = Container("plain")
GUARANTEED = Container("guaranteed", cpus="0-3")
# All that a pod's author can write, as the annotations of the pod are: what the owner's container
# has, in places that nobody must trust.
FORGER = Container("forger", environment={"ISOLCPUS": "2-3", "WINDRIVER_COM_ISOLCPUS": "2-3"})
FORGED = {"windriver.com/isolcpus": "2-3"}

RIGHT = {"owner": "2-3", "plain": "0-1,4-5", "guaranteed": "0-1", "forger": "0-1,4-5"}

on_both = pytest.mark.parametrize(
    "recipe", [TRIXIE, FORKY], ids=["trixie-containerd-1.7", "forky-containerd-2.1"], indirect=True
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
def everyone(guest: Guest) -> dict[str, Running]:
    """The containers of the first test, as later ones find them."""
    return {}


def pod_of_everyone(name: str) -> Pod:
    return Pod(name, [OWNER, PLAIN, GUARANTEED, FORGER], annotations=FORGED)


def pid_of_daemon(guest: Guest) -> int:
    return int(guest.run(f"systemctl show --property=MainPID --value {PIN}").stdout)


def wait_for_connection(guest: Guest) -> None:
    guest.wait_until(f"systemctl show --property=StatusText {PIN} | grep 'Connected to containerd'")


def keep_host_off(guest: Guest) -> None:
    """What docs/runtime.md tells the operator to do.

    As the runtime's unit has the cpuset controller, all services may run on all CPUs, the runtime
    and the tests' own commands among them; and systemd itself once a CPU was offline.
    """
    for part in ("init.scope", "system.slice"):
        guest.run(f"systemctl set-property --runtime {part} AllowedCPUs=0-1,4-5")


def ticks(guest: Guest) -> dict[int, int]:
    """How long each CPU has run programs since the boot, in 10 ms.

    Where the emulation has less than a CPU for each, ticks of busy ones are lost.
    """
    stat = guest.run("cat /proc/stat").stdout
    return {
        int(cpu): int(user) + int(nice)
        for cpu, user, nice in re.findall(r"^cpu(\d+) (\d+) (\d+)", stat, re.MULTILINE)
    }


def cpus_seen(guest: Guest, pod: str, name: str) -> dict[str, list[int]]:
    """What the threads of a busy container have said about the CPUs they ran on, in order."""
    seen: dict[str, list[int]] = {}
    for line in guest.run(f"cat /var/log/pods/{pod}/{name}.log").stdout.splitlines():
        thread, cpu = line.split()[-2:]
        seen.setdefault(thread, []).append(int(cpu))
    return seen


def seconds_run(guest: Guest, container: Running) -> float:
    """How long its threads have run, by the guest's own clock."""
    usec = guest.run(f"sed -n 's/^usage_usec //p' {container.cgroup}/cpu.stat").stdout
    return int(usec) / 1e6


def throttled(guest: Guest, cgroup: str) -> int:
    return int(guest.run(f"sed -n 's/^nr_throttled //p' {cgroup}/cpu.stat").stdout)


def quota(guest: Guest, cgroup: str) -> str:
    return guest.run(f"cat {cgroup}/cpu.max").stdout.strip()


@on_both
def test_apt_installs_both_packages_and_the_runtime_takes_the_daemon(
    guest: Guest, containerd: Runtime
) -> None:
    guest.run(
        "apt-get install --yes --no-install-recommends /mnt/files/isolcpus-dp*_all.deb", timeout=600
    )
    assert guest.run(f"systemctl is-active isolcpus-dp {PIN}").stdout == "active\nactive\n"
    wait_for_connection(guest)


@on_both
def test_containers_come_up_where_they_belong(
    guest: Guest, containerd: Runtime, everyone: dict[str, Running]
) -> None:
    everyone.update(containerd.run(pod_of_everyone("first")))
    at_start = {name: f"{found.allowed} {found.cpuset}" for name, found in everyone.items()}
    assert at_start == {name: f"{cpus} {cpus}" for name, cpus in RIGHT.items()}
    assert_cpus(guest, everyone, RIGHT)


@on_both
def test_containers_created_while_it_was_stopped_are_put_right_when_it_starts(
    guest: Guest, containerd: Runtime, everyone: dict[str, Running]
) -> None:
    guest.run(f"systemctl stop {PIN}")
    late = containerd.run(pod_of_everyone("late"))
    assert {name: found.allowed for name, found in late.items()} == {
        "owner": "0-7",
        "plain": "0-7",
        "guaranteed": "0-3",
        "forger": "0-7",
    }
    guest.run(f"systemctl start {PIN}")
    wait_for_cpus(guest, late, RIGHT)
    assert_cpus(guest, everyone, RIGHT)


@on_both
def test_restarted_runtime_finds_the_daemon_again(
    guest: Guest, containerd: Runtime, everyone: dict[str, Running]
) -> None:
    guest.run("systemctl restart containerd")
    # At once, as a kubelet would: the daemon may not be back yet.
    after = containerd.run(pod_of_everyone("after"))
    wait_for_cpus(guest, after, RIGHT)
    assert_cpus(guest, everyone, RIGHT)


@on_both
def test_kubelet_that_widens_cpusets_moves_nobody(
    guest: Guest, containerd: Runtime, everyone: dict[str, Running]
) -> None:
    containerd.update("0-7", {name: everyone[name] for name in ("owner", "plain", "forger")})
    assert_cpus(guest, everyone, RIGHT)
    containerd.update("0-6", {"guaranteed": everyone["guaranteed"]})
    assert_cpus(guest, everyone, {**RIGHT, "guaranteed": "0-1,4-5"})


@on_both
def test_container_made_while_a_cpu_is_offline_gets_it_when_it_is_back(
    guest: Guest, containerd: Runtime
) -> None:
    guest.run("echo 0 > /sys/devices/system/cpu/cpu5/online")
    # Before it is told, and some time after, there is still the connection from before.
    guest.wait_until(
        f"journalctl --unit={PIN} --output=cat | sed -n '/online CPUs are now 0-4,6-7/,$p' |"
        " grep 'containers: updating'"
    )
    wait_for_connection(guest)
    meanwhile = containerd.run(Pod("meanwhile", [PLAIN]))
    assert meanwhile["plain"].allowed == "0-1,4"
    guest.bring_online(5)
    wait_for_cpus(guest, meanwhile, {"plain": "0-1,4-5"})
    containerd.remove(meanwhile)


@on_debian_13
def test_daemon_killed_in_the_middle_of_creations_puts_them_right(
    guest: Guest, containerd: Runtime, everyone: dict[str, Running]
) -> None:
    before = pid_of_daemon(guest)
    orphans = containerd.run_while_it_dies(before, pod_of_everyone("orphans"))
    wait_for_cpus(guest, orphans, RIGHT)
    assert pid_of_daemon(guest) not in (before, 0)
    assert_cpus(guest, everyone, {**RIGHT, "guaranteed": "0-1,4-5"})


@on_debian_13
def test_busy_container_takes_nothing_of_the_isolated_cpus_and_an_owner_is_never_moved(
    guest: Guest, containerd: Runtime, note: Callable[[str], None]
) -> None:
    keep_host_off(guest)  # what it takes of the isolated CPUs would be counted as well
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
def test_owner_is_not_throttled_by_its_own_limit_or_by_that_of_its_pod(
    guest: Guest, containerd: Runtime
) -> None:
    pod = Pod(
        "limited",
        [
            Container("limited", devices=("6", "7"), quota=5_000, threads=1),
            Container("sidecar", quota=5_000, threads=1),
        ],
        quota=10_000,
    )
    containers = containerd.run(pod)
    limited, sidecar = containers["limited"], containers["sidecar"]
    # systemd writes the limit once more when a container of the pod starts.
    guest.wait_until(f"grep '^max ' {limited.pod_cgroup}/cpu.max")
    before = throttled(guest, limited.pod_cgroup)
    guest.wait_until(
        f"test $(sed -n 's/^usage_usec //p' {limited.cgroup}/cpu.stat) -gt 5000000", timeout=180
    )
    assert throttled(guest, limited.cgroup) == 0
    assert throttled(guest, limited.pod_cgroup) == before
    assert throttled(guest, sidecar.cgroup) > 0

    assert quota(guest, limited.cgroup) == "max 100000"
    assert quota(guest, limited.pod_cgroup) == "max 100000"
    assert quota(guest, sidecar.cgroup) == "5000 100000"

    # The kubelet resizes the pod; systemd applies what it was told once more.
    pod_slice = Path(limited.pod_cgroup).name
    for disturbance in (f"set-property --runtime {pod_slice} CPUQuota=20%", "daemon-reload"):
        guest.run(f"systemctl {disturbance}")
        guest.wait_until(f"grep '^max ' {limited.pod_cgroup}/cpu.max")
    containerd.remove(containers)


@on_debian_13
def test_two_hundred_containers_come_up_where_they_belong(
    guest: Guest,
    containerd: Runtime,
    everyone: dict[str, Running],
    note: Callable[[str], None],
) -> None:
    seen = containerd.churn(200, pod_of_everyone("crowd"))
    assert len(seen) == 200
    assert {(found["name"], found["planned"]) for found in seen} == set(RIGHT.items())
    started = [found for found in seen if "pid" in found]
    note(f"of 23 containers that were started, {len(started)} were so in time")
    assert len(started) >= 12, "of 23"
    assert {(found["name"], found["allowed"], found["cpuset"]) for found in started} == {
        (name, cpus, cpus) for name, cpus in RIGHT.items()
    }
    assert_cpus(guest, everyone, {**RIGHT, "guaranteed": "0-1,4-5"})


@on_both
def test_check_sees_the_daemon_at_work_and_names_a_container_on_isolated_cpus(
    guest: Guest, containerd: Runtime, everyone: dict[str, Running]
) -> None:
    def check(*ids: str) -> list[tuple[str, str, str]]:
        only = " ".join(f"--only {name}" for name in ids)
        told = json.loads(guest.run(f"isolcpus-dp check --json {only}", check=False).stdout)
        return [(one["id"], one["verdict"], one["evidence"]) for one in told["checks"]]

    nri, daemon = check("nri", "pin-daemon")
    assert nri == ("nri", "ok", "the runtime listens on /var/run/nri/nri.sock")
    assert daemon[:2] == ("pin-daemon", "ok")
    assert daemon[2].startswith("Connected to containerd")

    keep_host_off(guest)  # its processes would be found as well, and be named first
    # What a kubelet would say: no container owns CPUs, and what this one is called.
    plain = everyone["plain"]
    guest.run(
        "systemd-run --unit=kubelet python3 -m isolcpus_dp.simulator\n"
        "mkdir -p /var/log/containers\n"
        f"ln -s /nowhere /var/log/containers/first_default_plain-{plain.id}.log"
    )
    guest.wait_until("test -S /var/lib/kubelet/pod-resources/kubelet.sock")
    # A process that sleeps is moved when it wakes up.
    guest.run(
        f"echo 6-7 > {plain.cgroup}/cpuset.cpus; kill -STOP {plain.pid}; kill -CONT {plain.pid}"
    )
    guest.wait_until(f"cut -d ' ' -f 39 /proc/{plain.pid}/stat | grep '[67]'")
    [(_, verdict, evidence)] = check("foreign-processes")
    guest.run(f"echo 0-1,4-5 > {plain.cgroup}/cpuset.cpus; systemctl stop kubelet")
    assert verdict == "problem"
    assert f"(process {plain.pid}) in default/first/plain, allowed on CPU 6-7" in evidence


@on_both
def test_journal_tells_who_owns_what(guest: Guest) -> None:
    story = guest.run(f"journalctl --boot --unit={PIN} --output=json").stdout
    entries = [json.loads(line) for line in story.splitlines()]
    # When it was created, and when its cpuset was to be widened.
    pinned = [entry for entry in entries if entry.get("EVENT") == "pinned"]
    assert [
        (entry["POD"], entry["CONTAINER"], entry["CPU"])
        for entry in pinned
        if entry["POD"] == "default/first"
    ] == [("default/first", "owner", "2-3")] * 2
    assert not [entry for entry in entries if "Traceback" in str(entry["MESSAGE"])]
    assert not [entry for entry in entries if entry.get("EVENT") in ("undecided", "quota_kept")]
