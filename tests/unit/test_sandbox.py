"""The cpuset of pods' sandboxes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isolcpus_dp.host import inotify
from tests.testbed.wait import until

from .conftest import MakeUp
from .runtime_calls import OWNER, Calls

SYSTEMD = {"cgroup_parent": "kubepods-poda.slice"}
SLICE = "kubepods.slice/kubepods-poda.slice"


@pytest.fixture
async def calls(make_up: MakeUp, tmp_path: Path) -> AsyncIterator[Calls]:
    with inotify.Watch() as watch:
        yield Calls(make_up, tmp_path, watch)


def sandbox(directory: Path, cpus: str = "", threads: str = "17\n") -> Path:
    """Creates the cgroup of a sandbox, and returns its cpuset."""
    directory.mkdir(parents=True)
    name = "tasks" if "cpuset" in directory.parts else "cgroup.threads"
    (directory / name).write_text(threads)
    (directory / "cpuset.cpus").write_text(f"{cpus}\n")
    return directory / "cpuset.cpus"


@pytest.mark.parametrize(
    ("linux", "path"),
    [
        (SYSTEMD, f"{SLICE}/cri-containerd-a.scope"),
        (SYSTEMD, f"{SLICE}/crio-a.scope"),
        ({"cgroup_parent": "/kubepods/poda"}, "kubepods/poda/a"),
        ({"cgroup_parent": "/kubepods/poda"}, "cpuset/kubepods/poda/crio-a"),
        (
            {**SYSTEMD, "cgroups_path": "kubepods-poda.slice:other:a"},
            f"{SLICE}/other-a.scope",
        ),
        ({"cgroups_path": "/kubepods/poda/other"}, "cpuset/kubepods/poda/other"),
    ],
    ids=[
        "systemd, containerd",
        "systemd, CRI-O",
        "cgroupfs, containerd",
        "v1, CRI-O",
        "reported for systemd",
        "reported for cgroupfs",
    ],
)
def test_sandbox_is_off_the_isolated_cpus_from_the_first_container_on(
    calls: Calls, tmp_path: Path, linux: dict[str, str], path: str
) -> None:
    cpuset = sandbox(tmp_path / path, "0-3" if path.startswith("cpuset") else "")
    pod = calls.pod("a", **linux)
    calls.create(pod, "owner", OWNER)
    assert cpuset.read_text() == "0-1"


def test_sandboxes_that_exist_are_updated_at_the_connection(calls: Calls, tmp_path: Path) -> None:
    calls.pod("a", **SYSTEMD)
    cpuset = sandbox(tmp_path / SLICE / "cri-containerd-a.scope")
    calls.connect()
    assert cpuset.read_text() == "0-1"


def test_sandbox_keeps_a_cpuset_without_isolated_cpus(calls: Calls, tmp_path: Path) -> None:
    calls.pod("a", **SYSTEMD)
    cpuset = sandbox(tmp_path / SLICE / "crio-a.scope", "1")  # infra_ctr_cpuset of CRI-O
    calls.connect()
    assert cpuset.read_text() == "1\n"


def test_sandbox_is_unchanged_if_others_are_not_kept_off(calls: Calls, tmp_path: Path) -> None:
    calls.pod("a", **SYSTEMD)
    cpuset = sandbox(tmp_path / SLICE / "cri-containerd-a.scope", "0-3")
    calls.connect(keep_others_off=False)
    assert cpuset.read_text() == "0-3\n"


@pytest.mark.parametrize("threads", ["", "17\n18\n"], ids=["ended", "virtual machine"])
def test_sandbox_that_is_not_one_thread_is_unchanged(
    calls: Calls, tmp_path: Path, threads: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls.pod("a", **SYSTEMD)
    cpuset = sandbox(tmp_path / SLICE / "cri-containerd-a.scope", "0-3", threads)
    calls.connect()
    assert cpuset.read_text() == "0-3\n"
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


async def test_sandbox_is_updated_again_when_systemd_resets_it(
    calls: Calls, tmp_path: Path
) -> None:
    calls.pod("a", **SYSTEMD)
    cpuset = sandbox(tmp_path / SLICE / "cri-containerd-a.scope")
    calls.connect()
    cpuset.write_text("\n")
    await until(lambda: cpuset.read_text() == "0-1")


def test_failure_is_logged_once_for_a_pod(
    calls: Calls, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pod = calls.pod("a", **SYSTEMD)
    cpuset = sandbox(tmp_path / SLICE / "cri-containerd-a.scope")
    cpuset.unlink()
    for name in ("one", "two"):
        calls.create(pod, name)
    assert (
        caplog.messages.count(
            "could not keep the sandbox of pod default/a off the isolated CPUs:"
            f" {cpuset}: No such file or directory"
        )
        == 1
    )
