"""Looks at the guest until the books and what runs agree, or time is up; a program in the guest.

python3 -m tests.vm.soak.look SECONDS RULES CHECK...

RULES is a `books.Rules` as JSON. Each CHECK is a check of `isolcpus-dp check` that has to be ok.
Prints an object: what is `wrong`, how many processes of `lost` containers it has killed, the
`samples` of the daemons, the `pods` that the author created.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cri_pb2 as cri
import grpc

from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.kubelet.paths import DEFAULT_DIRECTORY, checkpoint
from isolcpus_dp.simulator.devices import Checkpoint
from tests.testbed.process import children
from tests.testbed.storm.holdings import held, memory_of
from tests.vm import pods
from tests.vm.soak import author, books, manifest, paths
from tests.vm.soak.books import Container, Rules, View
from tests.vm.soak.containers import Containers, channel, node_name
from tests.vm.soak.manifest import RESOURCE

_SYSFS = Path("/sys")
_AGAIN_SECONDS = 0.5
_STARTED_BY_THEN_SECONDS = 30.0
# What may fail while something changes.
_CHANGING = (OSError, KeyError, grpc.aio.AioRpcError, machine.MachineError)


async def settled(seconds: float, rules: Rules, checks: Sequence[str]) -> tuple[list[str], int]:
    """What is wrong when everything has been given `seconds` to become right.

    With the number of processes of lost containers that were killed meanwhile.
    """
    deadline = time.monotonic() + seconds
    killed = set[int]()
    async with channel() as runtime:
        containers = Containers(runtime, "", _no_answer)
        while True:
            try:
                view = await look(containers)
                wrong = books.wrong(view, rules) or books.differences(status(), view)
                wrong = wrong or list(not_ok(checks))
                # As docs/operations.md advises.
                for pid in await lost(containers) if wrong else ():
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
            except _CHANGING as error:
                wrong = [f"could not look: {type(error).__name__}: {error}"]
            if not wrong or time.monotonic() > deadline:
                return wrong, len(killed)
            await asyncio.sleep(_AGAIN_SECONDS)


async def look(containers: Containers) -> View:
    """The guest now. Raises one of _CHANGING if something vanishes meanwhile."""
    present = machine.read(_SYSFS)
    kubelet = author.read_status()
    devices = kubelet["devices"].get(RESOURCE, {})
    allocated = Checkpoint(checkpoint(DEFAULT_DIRECTORY))
    names = {one.id: one.metadata.name for one in await containers.sandboxes()}
    running = [one for one in await containers.containers() if one.state == cri.CONTAINER_RUNNING]
    return View(
        cpus=present.present,
        isolated=present.isolated,
        online=present.online,
        healthy=frozenset(int(key) for key, (health, *_) in devices.items() if health == "Healthy"),
        held={
            pod: frozenset(map(int, entry.ids))
            for pod in allocated.pods()
            for entry in allocated.of_pod(pod).values()
        },
        phases=kubelet["phases"] if str(kubelet["pid"]) == main_pid("kubelet") else {},
        manifests=manifest.read(paths.MANIFESTS, node_name(), {}),
        sandboxes=tuple(names.values()),
        containers=tuple(
            [
                container(
                    names[one.pod_sandbox_id], one.metadata.name, await containers.process(one.id)
                )
                for one in running
            ]
        ),
        pins=show("isolcpus-dp-pin", "StatusText").startswith("Connected"),
    )


async def lost(containers: Containers) -> list[int]:
    """The processes that wait to become a container which containerd no longer knows.

    runc has prepared them, and containerd was killed before it noticed. While a container starts,
    there is such a process for a moment.
    """
    waiting = [
        process
        for process in Path("/proc").glob("[0-9]*")
        if is_named(process, "runc:[2:INIT]") and age(process) > _STARTED_BY_THEN_SECONDS
    ]
    known = {one.id for one in (*await containers.containers(), *await containers.sandboxes())}
    cgroups = {int(process.name): pods.cgroup_of(int(process.name)).name for process in waiting}
    return [pid for pid, name in cgroups.items() if not any(one in name for one in known)]


def is_named(process: Path, name: str) -> bool:
    """Whether a process in /proc has this name; not if it has ended."""
    with contextlib.suppress(OSError):
        return (process / "comm").read_text() == f"{name}\n"
    return False


def age(process: Path) -> float:
    """The seconds since the start of a process in /proc: field 22 of its file `stat`, proc(5)."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def container(pod: str, name: str, pid: int) -> Container:
    cgroup = pods.cgroup_of(pid)
    threads = (
        thread
        for process in (cgroup / "cgroup.procs").read_text().split()
        for thread in Path(f"/proc/{process}/task").iterdir()
    )
    return Container(
        pod,
        name,
        cpulist.parse(pods.read_cpuset(cgroup)),
        tuple(cpulist.parse(pods.allowed(int(thread.name))) for thread in threads),
    )


def status() -> dict[str, Any]:
    """What `isolcpus-dp status` reports; its exit status says whether all devices are healthy."""
    printed = subprocess.run(
        ["isolcpus-dp", "status", "--json"], stdout=subprocess.PIPE, check=False
    ).stdout
    found: dict[str, Any] = json.loads(printed)
    return found


def not_ok(checks: Sequence[str]) -> Iterator[str]:
    """A sentence for each check that finds something."""
    if not checks:
        return
    only = [word for name in checks for word in ("--only", name)]
    printed = subprocess.run(
        ["isolcpus-dp", "check", "--json", *only], stdout=subprocess.PIPE, check=False
    ).stdout
    for one in json.loads(printed)["checks"]:
        if one["verdict"] != "ok":
            yield f"check {one['id']} says {one['verdict']}: {one['evidence']}"


def samples() -> dict[str, Any]:
    """By name of a daemon's process: its process ID, and what it holds."""
    main = int(main_pid("isolcpus-dp"))
    processes = {
        "main process": main,
        "worker": children(main)[0],
        "pinning daemon": int(main_pid("isolcpus-dp-pin")),
    }
    return {
        name: {"pid": pid, "holdings": asdict(held(pid)), "memory": asdict(memory_of(pid))}
        for name, pid in processes.items()
    }


def show(unit: str, name: str) -> str:
    """A property of a unit."""
    return subprocess.run(
        ["systemctl", "show", f"--property={name}", "--value", unit],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()


def main_pid(unit: str) -> str:
    return show(unit, "MainPID")


async def _no_answer(_pod: str, _container: pods.Json) -> Any:
    raise AssertionError("nothing is created here")


def main() -> None:
    seconds, rules, *checks = sys.argv[1:]
    wrong, killed = asyncio.run(settled(float(seconds), Rules(**json.loads(rules)), checks))
    record = json.loads(paths.CREATED.read_text()) if paths.CREATED.exists() else {}
    print(json.dumps({"wrong": wrong, "lost": killed, "samples": samples(), "pods": record}))


if __name__ == "__main__":
    main()
