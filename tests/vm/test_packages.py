"""Upgrade, downgrade and removal of the packages on a booted host, for each Debian release."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from bench.figures import records
from bench.figures.figure import Figure
from isolcpus_dp.service.events import Event
from tests.packages.build import TOP, packages, previous

from . import runtime
from .extent import in_full_run
from .guest import Guest
from .node import messages, remove_kubelet, show, start_kubelet, wait_for_devices
from .pinning import EXPECTED, mixed_pod, wait_for_connection
from .recipe import BOOKWORM, TRIXIE, Recipe
from .runtime import LOOK, Running, Runtime, looks

# By daemon: the directories that it may write to, besides its private temporary ones.
WRITABLE = {
    "isolcpus-dp": ("/run/isolcpus-dp", "/var/lib/kubelet/device-plugins"),
    "isolcpus-dp-pin": ("/sys/fs/cgroup",),
}
READ_ONLY = (
    "/boot",
    "/dev/hugepages",
    "/dev/mqueue",
    "/dev/shm",
    "/etc",
    "/run",
    "/srv",
    "/sys",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/kubelet",
)
CONFIGURATION = "/etc/isolcpus-dp/isolcpus-dp.conf"
EDITED = "[Plugin]\nCPUs=2-3,6\n"
# --force-confold keeps the administrator's version of the configuration file.
INSTALL = "apt-get install --yes --no-install-recommends -o Dpkg::Options::=--force-confold"

on_debian_12 = pytest.param(BOOKWORM, id="bookworm", marks=in_full_run)
on_debian_13 = pytest.param(TRIXIE, id="trixie")
on_both = pytest.mark.parametrize("recipe", [on_debian_12, on_debian_13], indirect=True)


@pytest.fixture(scope="module")
def recipe(request: pytest.FixtureRequest) -> Recipe:
    chosen: Recipe = request.param
    return chosen


@pytest.fixture(scope="module")
def guest_files(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    if not previous():
        pytest.skip("no git history, and so no previous version")
    script = shutil.copy(
        TOP / "packaging/deb/tests/service", tmp_path_factory.mktemp("autopkgtest") / "autopkgtest"
    )
    made = [*packages(recipe.suite), *previous(), Path(script)]
    if recipe is TRIXIE:
        made += runtime.files(tmp_path_factory.mktemp("runtime"))
    return made


@pytest.fixture(scope="module")
def running(guest: Guest, recipe: Recipe) -> dict[str, Running]:
    """Containers that the previous version has pinned, on Debian 13. Installs that version."""
    containerd = Runtime(guest)
    if recipe is TRIXIE:
        containerd.start()
    guest.run(f"{INSTALL} {names(previous())}", timeout=600)
    if recipe is not TRIXIE:
        return {}
    wait_for_connection(guest)
    return containerd.run(mixed_pod("before"))


def names(files: Sequence[Path]) -> str:
    """Returns the paths of the packages in the guest."""
    return " ".join(f"/mnt/files/{file.name}" for file in files)


def version_of(files: Sequence[Path]) -> str:
    return files[0].name.split("_")[1]


def version(guest: Guest) -> str:
    return guest.run("dpkg-query --show --showformat '${Version}' isolcpus-dp").stdout


def watch(guest: Guest, containers: Mapping[str, Running]) -> Callable[[], str]:
    """Looks at the CPUs of containers all the time.

    Returns a function that ends this and returns each look that differed.
    """
    # A file ends the loop. If it were killed within a look, it would print that a pipe broke.
    guest.run(
        f"{LOOK}touch /run/looking\n"
        f"while [ -e /run/looking ]; do\n{looks(containers)}\nsleep 0.1; done > /run/looks 2>&1 &\n"
        "echo $! > /run/looking"
    )
    end = "pid=$(cat /run/looking); rm /run/looking; tail --pid=$pid --follow /dev/null"
    return lambda: guest.run(f"{end}; sort -u /run/looks").stdout


def seconds_without_devices(guest: Guest) -> float:
    """Returns the length of the last period without devices, from the log of the kubelet."""
    log = guest.run(
        "journalctl --sync && journalctl -u kubelet -o json --output-fields=MESSAGE"
    ).stdout
    entries = [json.loads(line) for line in log.splitlines()]
    times = [(entry["MESSAGE"], int(entry["__REALTIME_TIMESTAMP"])) for entry in entries]
    ended = max(time for text, time in times if "the stream ended" in text)
    return (min(time for text, time in times if "Healthy" in text and time > ended) - ended) / 1e6


def seconds_served_after_unpacking(guest: Guest, pid: str) -> float:
    """Returns how long daemon `pid` ran after its new files were unpacked, in seconds."""
    configured = guest.run(
        "date +%s --date \"$(grep ' configure isolcpus-dp:all ' /var/log/dpkg.log"
        ' | tail -n 1 | cut -d " " -f 1,2)"'
    ).stdout
    stopped = [
        int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        for entry in messages(guest, Event.STOPPED)
        if entry["_PID"] == pid
    ]
    return max(stopped) - int(configured)


def install(guest: Guest, *arguments: str) -> None:
    guest.run(f"{INSTALL} {' '.join(arguments)}", timeout=600)
    wait_for_devices(guest, healthy=3)
    assert guest.run(f"cat {CONFIGURATION}").stdout == EDITED
    assert show(guest, "isolcpus-dp-kubelet.path", "ActiveState") == "active"


@on_both
def test_upgrade_keeps_configuration_and_owners_and_restarts_once(
    guest: Guest, recipe: Recipe, running: dict[str, Running], note: Callable[[str], None]
) -> None:
    old, new = previous(), packages(recipe.suite)
    guest.run(f"printf '{EDITED}' > {CONFIGURATION} && systemctl restart isolcpus-dp")
    start_kubelet(guest)
    wait_for_devices(guest, healthy=3)
    guest.run("systemctl restart isolcpus-dp")
    wait_for_devices(guest, healthy=3)
    restart = seconds_without_devices(guest)
    before = version(guest), len(messages(guest, Event.STARTED))
    pid = show(guest, "isolcpus-dp", "MainPID")

    looks_that_differ = watch(guest, running)
    install(guest, names(new))
    if running:
        wait_for_connection(guest)
    # Each container had the same CPUs all the time, in its cgroup and in its threads.
    expected = sorted(f"{name} {cpus} {cpus}\n" for name, cpus in EXPECTED.items())
    assert looks_that_differ() == ("".join(expected) if running else "")
    assert (before[0], version(guest)) == (version_of(old), version_of(new))
    # One restart of each daemon. The old one runs on while the files are replaced.
    assert len(messages(guest, Event.STARTED)) - before[1] == 2
    assert seconds_served_after_unpacking(guest, pid) > 0
    upgrade = seconds_without_devices(guest)
    note(f"without devices: {restart:.1f} s in a restart, {upgrade:.1f} s in an upgrade")
    condition = guest.run(". /etc/os-release; echo $PRETTY_NAME").stdout.strip()
    for what, seconds in ("a restart of the service", restart), ("an upgrade", upgrade):
        name = f"from the last device to the first one, in {what}"
        records.hand_over(Figure("make upgrade", name, "s", seconds, condition=condition))


@pytest.mark.parametrize("recipe", [on_debian_12], indirect=True)
def test_downgrade_and_reinstallation_keep_the_configuration(guest: Guest, recipe: Recipe) -> None:
    old, new = previous(), packages(recipe.suite)
    install(guest, "--allow-downgrades", names(old))
    assert version(guest) == version_of(old)
    install(guest, names(new))
    install(guest, "--reinstall", names(new))
    assert version(guest) == version_of(new)


@on_both
def test_daemons_are_sandboxed_and_their_files_are_private(guest: Guest) -> None:
    for daemon, writable in WRITABLE.items():
        score = guest.run(f"systemd-analyze security --no-pager {daemon} | tail -n 1").stdout
        assert float(score.split(":")[1].split()[0]) <= 1.0
        inside = f"nsenter --mount --target $(systemctl show -p MainPID --value {daemon})"
        for directory in READ_ONLY:
            attempt = guest.run(f"{inside} mkdir {directory}/attempt", check=False)
            assert "Read-only file system" in attempt.stderr or "denied" in attempt.stderr, attempt
        for directory in writable:
            guest.run(f"{inside} sh -c 'mkdir {directory}/attempt && rmdir {directory}/attempt'")
    created = guest.run(
        "cd /var/lib/kubelet/device-plugins && find /run/isolcpus-dp .isolcpus-dp windriver*"
        " -printf '%m %f\\n' | sort"
    ).stdout
    assert created.splitlines() == [
        "600 0",  # the daemon's own socket; the other one is a link to it
        "600 configuration",
        "600 isolcpus-dp.pid",
        "600 registered",
        "600 windriver.com-isolcpus.sock",
        "700 .isolcpus-dp",
        "700 isolcpus-dp",
    ]


@on_both
def test_autopkgtest_of_the_units_passes(guest: Guest) -> None:
    remove_kubelet(guest)
    guest.run("sh /mnt/files/autopkgtest", timeout=600)


@on_both
def test_removal_keeps_the_configuration_and_purge_deletes_all(guest: Guest) -> None:
    guest.run("apt-get remove --yes isolcpus-dp", timeout=600)
    assert guest.run(f"cat {CONFIGURATION}").stdout == EDITED
    assert guest.run("systemctl is-active isolcpus-dp isolcpus-dp-pin", check=False).stdout == (
        "inactive\ninactive\n"
    )
    # Delete the kubelet's own files, but keep the directory that the service creates without one.
    made = "/var/lib/kubelet/device-plugins"
    guest.run(f"find /var/lib/kubelet -mindepth 1 -not -path {made} -delete && test -d {made}")
    guest.run("apt-get purge --yes isolcpus-dp isolcpus-dp-pin", timeout=600)
    guest.run("test ! -e /var/lib/kubelet")
    left = guest.run(
        "find / -xdev -path /proc -prune -o -path /var/log -prune -o"
        " -iname '*isolcpus*' -not -path '/mnt/*' -print; find /run -name '*isolcpus*'"
    ).stdout
    assert left == ""
