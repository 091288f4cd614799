"""Who owns which CPUs, before and while a measurement runs.

The machine has 4 cores with 2 threads; CPU 4 is the sibling of 0. CPUs 1-3 and 5-7 are isolated.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from isolcpus_dp.kubelet import paths, podresources
from isolcpus_dp.kubelet.podresources import Allocation, Listing, Unseen
from isolcpus_dp.measure import owners
from isolcpus_dp.measure.owners import OwnersUnknown, Watch
from isolcpus_dp.measure.request import Host
from isolcpus_dp.simulator.machine import MadeUpMachine
from tests.unit.conftest import MakeUp

RESOURCE = "windriver.com/isolcpus"
SECONDS = 20


class Kubelet:
    """A kubelet's files, and its answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.held: dict[str, tuple[str, ...]] = {}  # by pod that is listed: device ids
        self.answers = True
        self.asked = 0

    def write(self, **entries: tuple[str, ...]) -> None:
        """Writes the checkpoint as the kubelet does: under another name first."""
        file = paths.checkpoint(self.directory)
        file.parent.mkdir(parents=True, exist_ok=True)
        listed = [
            {
                "PodUID": pod,
                "ContainerName": "main",
                "ResourceName": RESOURCE,
                "DeviceIDs": {"0": ids},
                "AllocResp": "",
            }
            for pod, ids in entries.items()
        ]
        temporary = file.with_name(".checkpoint")
        temporary.write_text(json.dumps({"Data": {"PodDeviceEntries": listed or None}}))
        temporary.rename(file)

    def look(self, directory: Path) -> Listing:
        self.asked += 1
        if not self.answers:
            raise Unseen("/kubelet.sock does not answer: refused")
        allocations = [
            Allocation("default", pod, "main", RESOURCE, ids) for pod, ids in self.held.items()
        ]
        return Listing(frozenset(map(str, allocations)), tuple(allocations))


class Seen:
    """What a watch has reported."""

    def __init__(self) -> None:
        self.owners: dict[int, str] = {}
        self.online: frozenset[int] = frozenset()
        self.failure = ""
        self.changed = asyncio.Event()

    def owned(self, owned: Mapping[int, str]) -> None:
        self.owners.update(owned)
        self.changed.set()

    def set_online(self, cpus: frozenset[int]) -> None:
        self.online = cpus
        self.changed.set()

    def fail(self, reason: str) -> None:
        self.failure = reason
        self.changed.set()

    async def until(self, owners: Mapping[int, str], online: str = "01234567") -> None:
        while self.owners != owners or self.online != set(map(int, online)):
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), SECONDS)


@pytest.fixture
def kubelet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubelet:
    kubelet = Kubelet(tmp_path / "kubelet")
    monkeypatch.setattr(podresources, "look", kubelet.look)
    return kubelet


@pytest.fixture
def machine(make_up: MakeUp) -> MadeUpMachine:
    return make_up("1x4x2", {1, 2, 3, 5, 6, 7})


@pytest.fixture
def host(machine: MadeUpMachine, kubelet: Kubelet) -> Host:
    return Host(machine.root, None, kubelet.directory)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def test_owners_are_those_that_the_kubelet_lists(host: Host, kubelet: Kubelet, proc: Path) -> None:
    kubelet.held = {"forwarder": ("2", "6"), "camera": ("3",)}
    assert owners.look(host, proc).owners == {
        2: "default/forwarder/main",
        6: "default/forwarder/main",
        3: "default/camera/main",
    }


def test_cpu_with_two_owners_names_both(host: Host, kubelet: Kubelet, proc: Path) -> None:
    kubelet.held = {"ended": ("2",), "new": ("2",)}
    assert owners.look(host, proc).owners == {2: "default/ended/main and default/new/main"}


def test_running_init_container_is_an_owner(host: Host, kubelet: Kubelet, proc: Path) -> None:
    kubelet.write(running=("2",), ended=("3",))
    (proc / "812").mkdir()
    (proc / "812/cgroup").write_text("0::/kubepods/podrunning/0123\n")
    assert owners.look(host, proc).owners == {2: "container main of the pod with UID running"}


def test_host_without_a_kubelet_has_no_owners(host: Host, kubelet: Kubelet, proc: Path) -> None:
    kubelet.answers = False
    assert owners.look(host, proc).owners == {}


@pytest.mark.parametrize(
    "left",
    [
        paths.registration_socket(Path()),
        paths.checkpoint(Path()),
        paths.pod_resources_socket(Path()),
    ],
    ids=lambda file: str(file),
)
def test_kubelet_that_cannot_be_asked_makes_owners_unknown(
    left: Path, host: Host, kubelet: Kubelet, proc: Path
) -> None:
    kubelet.answers = False
    (kubelet.directory / left).parent.mkdir(parents=True)
    (kubelet.directory / left).touch()
    with pytest.raises(OwnersUnknown) as caught:
        owners.look(host, proc)
    assert str(caught.value) == (
        "which CPUs containers own is unknown, and no busy loop may run on these; CPU owners:"
        " /kubelet.sock does not answer: refused"
    )


def test_checkpoint_of_another_format_makes_owners_unknown(
    host: Host, kubelet: Kubelet, proc: Path
) -> None:
    kubelet.write()
    paths.checkpoint(kubelet.directory).write_text("{")
    with pytest.raises(OwnersUnknown, match=r"^which CPUs containers own is unknown: .* format"):
        owners.look(host, proc)


async def test_new_entry_of_the_checkpoint_is_reported_at_once(
    host: Host, kubelet: Kubelet, proc: Path
) -> None:
    """Also while the kubelet does not answer."""
    kubelet.write(before=("1",))
    seen = Seen()
    async with Watch(host, owners.look(host, proc), seen.owned, seen.set_online, seen.fail, proc):
        await seen.until({})
        kubelet.answers = False
        kubelet.write(before=("1",), new=("2", "6"))
        name = "container main of the pod with UID new"
        await seen.until({2: name, 6: name})


async def test_name_of_a_new_owner_follows(host: Host, kubelet: Kubelet, proc: Path) -> None:
    kubelet.write()
    seen = Seen()
    async with Watch(host, owners.look(host, proc), seen.owned, seen.set_online, seen.fail, proc):
        kubelet.held = {"forwarder": ("2",)}
        kubelet.write(uid=("2",))
        await seen.until({2: "default/forwarder/main"})


async def test_owners_that_came_before_the_watch_are_reported(
    host: Host, kubelet: Kubelet, proc: Path
) -> None:
    kubelet.write()
    before = owners.look(host, proc)
    kubelet.held = {"forwarder": ("2",)}
    kubelet.write(uid=("2",), init=("3",))
    seen = Seen()
    async with Watch(host, before, seen.owned, seen.set_online, seen.fail, proc):
        assert seen.owners == {
            2: "default/forwarder/main",
            3: "container main of the pod with UID init",
        }


async def test_measurement_does_not_begin_if_owners_have_become_unknown(
    host: Host, kubelet: Kubelet, proc: Path
) -> None:
    kubelet.write()
    before = owners.look(host, proc)
    kubelet.answers = False
    seen = Seen()
    with pytest.raises(OwnersUnknown):
        async with Watch(host, before, seen.owned, seen.set_online, seen.fail, proc):
            pass


async def test_kubelet_that_comes_later_is_watched(
    host: Host, kubelet: Kubelet, proc: Path
) -> None:
    kubelet.answers = False
    seen = Seen()
    async with Watch(host, owners.look(host, proc), seen.owned, seen.set_online, seen.fail, proc):
        kubelet.write(new=("2",))
        await seen.until({2: "container main of the pod with UID new"})
        kubelet.answers = True
        kubelet.held = {"forwarder": ("3",)}
        kubelet.write(new=("2",), newer=("3",))
        await seen.until({2: "container main of the pod with UID new", 3: "default/forwarder/main"})


async def test_kubelet_that_answers_again_is_asked(
    host: Host, kubelet: Kubelet, proc: Path
) -> None:
    kubelet.write()
    socket = paths.pod_resources_socket(kubelet.directory)
    socket.parent.mkdir()
    seen = Seen()
    async with Watch(host, owners.look(host, proc), seen.owned, seen.set_online, seen.fail, proc):
        kubelet.held = {"forwarder": ("2",)}
        socket.touch()
        await seen.until({2: "default/forwarder/main"})


async def test_cpus_that_go_offline_are_reported(
    host: Host, machine: MadeUpMachine, kubelet: Kubelet, proc: Path
) -> None:
    seen = Seen()
    async with Watch(host, owners.look(host, proc), seen.owned, seen.set_online, seen.fail, proc):
        machine.set_offline(3)
        await seen.until({}, online="0124567")


async def test_watch_that_fails_says_why(
    host: Host, kubelet: Kubelet, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()

    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    async with Watch(host, owners.look(host, proc), seen.owned, seen.set_online, seen.fail, proc):
        monkeypatch.setattr(owners, "look", fail)
        kubelet.write(new=("2",))
        while not seen.failure:
            seen.changed.clear()
            await asyncio.wait_for(seen.changed.wait(), SECONDS)
    assert seen.failure == (
        "[Errno 24] Too many open files: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches"
    )


async def test_start_that_is_cancelled_leaves_no_task(
    host: Host, kubelet: Kubelet, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet.write()
    seen = Seen()
    before, tasks = owners.look(host, proc), asyncio.all_tasks()
    looking, finish = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def look(host: Host, proc: Path) -> owners.Ownership:
        loop.call_soon_threadsafe(looking.set)
        assert finish.wait(SECONDS)
        return before

    monkeypatch.setattr(owners, "look", look)

    async def start() -> None:
        async with Watch(host, before, seen.owned, seen.set_online, seen.fail, proc):
            pass

    starting = asyncio.create_task(start())
    await asyncio.wait_for(looking.wait(), SECONDS)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    finish.set()
    await asyncio.sleep(0)  # the event loop, too, forgets the tasks
    assert asyncio.all_tasks() == tasks
