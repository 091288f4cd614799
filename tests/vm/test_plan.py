"""From a bare host to quiet owners: `plan --write /`, the commands that it prints, and a reboot.

GRUB boots these guests, with the configuration that update-grub makes of the plan's file. Debian 12
has no TuneD, Debian 13 has it; both have containerd 1.7, in which NRI is off by default.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.packages.build import as_made

from . import configured_kubelet, pinning, runtime
from .extent import in_full_run
from .guest import Guest
from .node import check, wait_for_registration
from .recipe import BOOKWORM_BARE, TRIXIE_BARE, Recipe
from .runtime import Container, Pod, Runtime

ISOLATED, HOUSEKEEPING = "2-3,6-7", "0-1,4-5"

# What an emulated machine with TuneD cannot meet, and without it:
# by recipe and check, a regular expression that is found in the evidence.
NOT_MET: dict[str, dict[str, str]] = {
    TRIXIE_BARE.name: {},
    # Without TuneD, kernel threads that choose their CPUs themselves are left to the administrator.
    # If one of them has run on an isolated CPU, the check names only that one.
    BOOKWORM_BARE.name: {"kernel-threads": "kcompactd|kswapd"},
}

# Prints each thread outside the container with process ID $1 that may run on an isolated CPU.
# Kernel threads are not looked at: each CPU has some of its own.
TRESPASSERS = f"""\
import os, pathlib, sys
from isolcpus_dp.host import cpulist
owner = pathlib.Path(f"/proc/{{sys.argv[1]}}/cgroup").read_text()
isolated = cpulist.parse("{ISOLATED}")
for task in pathlib.Path("/proc").glob("[0-9]*/task/[0-9]*"):
    try:
        os.readlink(task / "exe")  # a kernel thread has none
        fields = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        cgroup = (task / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        continue
    if cgroup != owner and cpulist.parse(fields["Cpus_allowed_list"].strip()) & isolated:
        print(fields["Name"].strip(), fields["Cpus_allowed_list"].strip(), cgroup.strip())
"""

pytestmark = pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(BOOKWORM_BARE, id="bookworm-bare"),
        # `test_book` follows a plan on this host, too.
        pytest.param(TRIXIE_BARE, id="trixie-bare", marks=in_full_run),
    ],
    indirect=True,
)


@pytest.fixture(scope="module")
def recipe(request: pytest.FixtureRequest) -> Recipe:
    chosen: Recipe = request.param
    return chosen


@pytest.fixture(scope="module")
def arguments() -> str:
    """None: the boot loader of the guest has them."""
    return ""


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return [*as_made(), *runtime.files(tmp_path_factory.mktemp("runtime"))]


@pytest.fixture(scope="module")
def containerd(guest: Guest) -> Runtime:
    """The runtime of a node with both packages and a kubelet, all with their default settings."""
    started = Runtime(guest)
    started.start(nri="")
    guest.run(
        "apt-get install --yes --no-install-recommends /mnt/files/isolcpus-dp*_all.deb", timeout=600
    )
    configured_kubelet.install(guest)
    guest.run("systemctl enable --now kubelet")
    return started


def verdicts(guest: Guest) -> dict[str, str]:
    return {name: verdict for name, (verdict, _) in check(guest).items()}


def not_ok(guest: Guest) -> dict[str, str]:
    """Returns the evidence of each check whose verdict is not ok."""
    found = check(guest)
    return {name: evidence for name, (verdict, evidence) in found.items() if verdict != "ok"}


def plan(guest: Guest, options: str) -> dict[str, Any]:
    planned: dict[str, Any] = json.loads(guest.run(f"isolcpus-dp plan --json {options}").stdout)
    return planned


@pytest.mark.usefixtures("containerd")
def test_checks_of_a_bare_host_find_problems(guest: Guest) -> None:
    found = check(guest)
    problems = {
        name: evidence for name, (verdict, evidence) in found.items() if verdict == "problem"
    }
    assert problems.keys() == {"kernel-arguments", "nri", "pin-daemon"}
    assert problems["kernel-arguments"].startswith("no CPU is isolated")


@pytest.mark.usefixtures("containerd")
def test_bare_host_differs_from_the_plan(guest: Guest) -> None:
    result = guest.run("isolcpus-dp plan --diff", check=False)
    assert result.status == 1
    said = result.stdout.splitlines()
    assert "/etc/default/grub.d/90-isolcpus-dp.cfg is missing" in said
    assert f"the kernel isolates CPU (none), and not {ISOLATED}" in said


def test_plan_is_written(guest: Guest) -> None:
    written = guest.run("isolcpus-dp plan --write /").stdout
    assert "wrote /etc/default/grub.d/90-isolcpus-dp.cfg\n" in written
    again = guest.run("isolcpus-dp plan --write /").stdout
    assert again.startswith("all files are already as planned\n")


def test_commands_that_follow_are_run(guest: Guest) -> None:
    planned = plan(guest, "")
    assert planned["isolated"] == ISOLATED
    guest.run(
        "echo KUBELET_EXTRA_ARGS=--config-dir=/etc/kubernetes/kubelet.conf.d > /etc/default/kubelet"
    )
    commands = planned["next"]
    assert commands[0] == "update-grub"
    assert commands[-1] == "isolcpus-dp check"
    for command in commands[: commands.index("systemctl reboot")]:
        if not command.startswith("kubectl "):  # there is no API server
            guest.run(command, timeout=120)
    guest.reboot()
    assert guest.run("cat /sys/devices/system/cpu/isolated").stdout == f"{ISOLATED}\n"
    assert " ".join(planned["kernel_arguments"]) in guest.run("cat /proc/cmdline").stdout


def test_daemons_are_connected_after_the_reboot(guest: Guest) -> None:
    wait_for_registration(guest)
    pinning.wait_for_connection(guest)


def test_checks_find_what_an_emulated_machine_can_meet(guest: Guest, recipe: Recipe) -> None:
    not_met = NOT_MET[recipe.name]
    end = time.monotonic() + 180
    # Some look at a moment, such as an interrupt or the CPU that a thread ran on last.
    while (bad := not_ok(guest)).keys() != not_met.keys() and time.monotonic() < end:
        time.sleep(1)
    assert bad.keys() == not_met.keys()
    for name, pattern in not_met.items():
        assert re.search(pattern, bad[name])


def test_nothing_is_left_to_do(guest: Guest) -> None:
    # TuneD applies its profile some time after the boot.
    said = guest.wait_until("isolcpus-dp plan --diff", timeout=120).stdout
    assert said == "nothing to do: the host is as planned\n"


def test_user_cannot_run_a_program_on_isolated_cpus(guest: Guest) -> None:
    def run(part: str, cpu: int) -> str:
        as_user = f"systemd-run --quiet --pipe --wait --uid=nobody --slice={part}"
        return f"{as_user} taskset --cpu-list {cpu} echo done"

    for part, cpu in (("system.slice", 2), ("user.slice", 7)):
        assert guest.run(run(part, 0)).stdout == "done\n"
        refused = guest.run(run(part, cpu), check=False)
        assert refused.status
        assert refused.stdout == ""
        assert "Invalid argument" in refused.stderr


def test_only_the_owner_may_run_on_its_cpus(guest: Guest, containerd: Runtime) -> None:
    configured_kubelet.set_pods(guest, "forwarder=2")
    containers = [Container("owner", devices=("2", "3")), Container("plain")]
    running = containerd.run(Pod("forwarder", containers))
    assert running["owner"].allowed == "2-3"
    assert running["plain"].allowed == HOUSEKEEPING
    guest.run(f"cat > /root/trespassers.py <<'END'\n{TRESPASSERS}END")
    # All others are looked at: services, the runtime's shim, and the sandbox, which is a third
    # process of the same program.
    assert guest.run("pgrep --count workload").stdout == "3\n"
    assert guest.run("pgrep --count containerd-shim").stdout == "1\n"
    others = guest.run(f"python3 /root/trespassers.py {running['owner'].pid}").stdout
    assert others == ""
    # Seen by the same program: the owner itself, beside another container.
    owner = guest.run(f"python3 /root/trespassers.py {running['plain'].pid}").stdout
    assert owner.startswith("workload 2-3 ")
