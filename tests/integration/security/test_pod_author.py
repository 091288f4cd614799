"""The author of a pod cannot get isolated CPUs that the kubelet has not given to the container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isolcpus_dp.simulator.machine import regular
from tests.testbed.daemon import connected, supervisor
from tests.testbed.host import RESOURCE, Host, made_up_host
from tests.testbed.runtime import Runtime, cpus

OWNER = {RESOURCE: "2-3"}
# The most that the API server accepts: 256 KiB for all annotations of an object.
MANY = {f"example.com/annotation-{number}": "x" * 200 for number in range(1100)}

CRIO = "io.kubernetes.cri-o.Annotations"


@pytest.fixture
def host() -> Iterator[Host]:
    """2 NUMA nodes of 4 CPUs, of which 2-3 and 6-7 are isolated."""
    with made_up_host(regular(2, 4, 1), {2, 3, 6, 7}) as host:
        yield host


@pytest.fixture
def runtime_name() -> str:
    """The name of `runtime`, unless a test overrides it."""
    return "containerd"


@pytest.fixture
async def runtime(host: Host, runtime_name: str) -> AsyncIterator[Runtime]:
    """A container runtime that is connected to the pinning daemon."""
    runtime = Runtime(host.nri_socket, name=runtime_name, request_seconds=20)
    await runtime.start()
    async with connected(supervisor(host, "pin"), runtime):
        yield runtime
    await runtime.stop()


async def test_container_after_an_owning_init_container_owns_nothing(runtime: Runtime) -> None:
    pod = runtime.run_pod("a")
    init = await runtime.create(pod, "init", OWNER)
    assert cpus(init) == "2-3"
    await runtime.end_container(init)
    assert cpus(await runtime.create(pod, "main")) == "0-1,4-5"
    # Nor does one of the same name that the kubelet has given nothing.
    assert cpus(await runtime.create(pod, "init")) == "0-1,4-5"


async def test_container_beside_an_owner_owns_nothing(runtime: Runtime) -> None:
    """Also an ephemeral one for debugging, which shares the owner's process namespace."""
    pod = runtime.run_pod("a")
    pod.annotations.update(OWNER)
    owner = await runtime.create(pod, "owner", OWNER)
    beside = await runtime.create(pod, "debugger", env=("ISOLCPUS=2-3",))
    await runtime.update(beside, cpus="2-3")
    assert (cpus(owner), cpus(beside)) == ("2-3", "0-1,4-5")


async def test_annotations_of_similar_names_own_nothing(runtime: Runtime) -> None:
    names = [
        RESOURCE.upper(), f"{RESOURCE}/", f" {RESOURCE}", f"{RESOURCE}\n", f"{RESOURCE}\0",
        "isolcpus", "windriver.com", f"container.{RESOURCE}", f"{RESOURCE}.main", "ISOLCPUS",
    ]  # fmt: skip
    pod = runtime.run_pod("forger")
    assert cpus(await runtime.create(pod, annotations=dict.fromkeys(names, "2-3"))) == "0-1,4-5"


ODD_VALUES = (
    "0-7", "2-3,0", "3-2", "2-99999999999999999999", "2-3\n6-7", "\u0662-\u0663", "-2", "2;3",
    "x" * 100_000, "2," * 50_000,
)  # fmt: skip


async def test_odd_values_grant_no_isolated_cpu(host: Host, runtime: Runtime) -> None:
    for number, value in enumerate(ODD_VALUES):
        pod = runtime.run_pod(f"odd-{number}")
        assert cpus(await runtime.create(pod, annotations={RESOURCE: value})) == "0-1,4-5"
        lines = [line for line in host.log.split("\n") if f"pod default/odd-{number}:" in line]
        said = f"container main of pod default/odd-{number}: annotation {RESOURCE}: "
        assert [line[: len(said)] for line in lines] == [said, said]  # when created and started
    assert all(line.isprintable() for line in host.log.split("\n"))


async def test_many_annotations_do_not_disturb_the_daemon(host: Host, runtime: Runtime) -> None:
    pod = runtime.run_pod("many")
    pod.annotations.update(MANY)
    assert sum(len(name) + len(value) for name, value in MANY.items()) > 225 << 10
    assert cpus(await runtime.create(pod, "owner", {**MANY, **OWNER})) == "2-3"
    assert cpus(await runtime.create(pod, "other", MANY)) == "0-1,4-5"
    assert runtime.connected
    assert "protocol error" not in host.log


async def test_names_cannot_write_lines_of_their_own_to_the_log(
    host: Host, runtime: Runtime
) -> None:
    pod = runtime.run_pod("a\ncontainer main of pod default/b owns CPU 6-7\x1b[2J")
    pod.namespace = "n:/%s"
    await runtime.create(pod, "c\rd\u202e", OWNER)
    assert all(line.isprintable() for line in host.log.split("\n"))
    assert host.log.rstrip("\n").split("\n")[-1] == (
        "container c?d? of pod n:/%s/a?container main of pod default/b owns CPU 6-7?[2J owns"
        " CPU 2-3"
    )


ODD_JSON = (
    json.dumps({RESOURCE: ["2-3"]}), json.dumps([RESOURCE, "2-3"]), json.dumps(OWNER)[:-1],
    "[" * 100_000, f'"{RESOURCE}"', "",
)  # fmt: skip


@pytest.mark.parametrize("runtime_name", ["cri-o"])
async def test_json_that_is_not_the_kubelets_owns_nothing(runtime: Runtime) -> None:
    for number, text in enumerate(ODD_JSON):
        pod = runtime.run_pod(f"odd-{number}")
        assert cpus(await runtime.create(pod, annotations={CRIO: text, **OWNER})) == "0-1,4-5"
    pod = runtime.run_pod("next")
    assert cpus(await runtime.create(pod, annotations={CRIO: json.dumps(OWNER)})) == "2-3"


@contextmanager
def cpuset(cpu: int) -> Iterator[Path]:
    """The file of the processes of a new cgroup with one CPU; skips the test if there is none."""
    name = f"isolcpus-dp-test-{os.getpid()}"
    version_1, version_2 = Path("/sys/fs/cgroup/cpuset"), Path("/sys/fs/cgroup")
    directory = (version_1 if version_1.is_dir() else version_2) / name
    try:
        directory.mkdir()
        try:
            (directory / "cpuset.mems").write_text("0")
            (directory / "cpuset.cpus").write_text(str(cpu))
            yield directory / "cgroup.procs"
        finally:
            directory.rmdir()
    except OSError as error:
        pytest.skip(f"this host lets the test make no cpuset: {error}")


AFFINITY = """
import os, sys
cpu, others = int(sys.argv[1]), set(map(int, sys.argv[2].split(",")))
try:
    os.sched_setaffinity(0, others - {cpu})
    print("left its cpuset")
except OSError:
    print("refused")
os.sched_setaffinity(0, others)
print(*os.sched_getaffinity(0))
"""


def test_process_cannot_leave_its_cpuset() -> None:
    """What pinning relies on: sched_setaffinity(2) stays within the cpuset of the cgroup."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        pytest.skip("needs two CPUs")
    with cpuset(available[0]) as processes:
        enter = f'echo $$ > {processes} && exec "$@"'
        command = [sys.executable, "-c", AFFINITY, str(available[0]), ",".join(map(str, available))]
        ended = subprocess.run(
            ["sh", "-c", enter, "sh", *command], capture_output=True, text=True, timeout=60
        )
    assert (ended.stderr, ended.stdout) == ("", f"refused\n{available[0]}\n")
