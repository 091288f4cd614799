"""The quotas of pods' own cgroups, and their watches."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from isolcpus_dp.host import inotify
from isolcpus_dp.nri import notes
from isolcpus_dp.nri.notes import Note, Quota
from isolcpus_dp.nri.quota import Quotas
from isolcpus_dp.nri.watches import Watches
from tests.testbed.wait import until


def watched() -> int:
    """The number of files and directories that this process watches with inotify."""
    return sum(
        file.read_text().count("inotify wd:")
        for file in Path("/proc/self/fdinfo").iterdir()
        if file.exists()  # the descriptor of the directory itself is already closed
    )


async def test_cgroups_of_ended_pods_are_no_longer_watched(tmp_path: Path) -> None:
    """The kernel keeps a watch on a file of a removed cgroup; a hard link does the same here."""
    kept = tmp_path / "kept"
    kept.mkdir()
    before = watched()
    with inotify.Watch() as watch:
        quotas = Quotas(tmp_path, Watches(watch))
        for number in range(200):
            pod = tmp_path / f"kubepods/pod{number}"
            pod.mkdir(parents=True)
            (pod / "cpu.max").write_text("10000 100000")
            os.link(pod / "cpu.max", kept / str(number))
            quotas.lift(f"/kubepods/pod{number}", f"default/{number}", lambda: None)
            assert (pod / "cpu.max").read_text() == "max"
            if number >= 10:
                shutil.rmtree(tmp_path / f"kubepods/pod{number - 10}")
        assert 0 < watched() - before < 50


async def test_cgroup_of_the_same_name_is_watched_again(tmp_path: Path) -> None:
    """The cgroups of a static pod always have the same name."""
    with inotify.Watch() as watch:
        quotas = Quotas(tmp_path, Watches(watch))
        file = tmp_path / "kubepods/pod1/cpu.max"
        for _ in range(2):
            file.parent.mkdir(parents=True)
            file.write_text("10000 100000")
            quotas.lift("/kubepods/pod1", "default/1", lambda: None)
            file.write_text("20000 100000")
            await until(lambda: file.read_text() == "max")
            shutil.rmtree(tmp_path / "kubepods")


async def test_quota_that_cannot_be_restored_is_logged_and_stays_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubepods/pod1/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text("max 100000")
    monkeypatch.setattr(notes, "read", lambda directory: Note(Quota(5, 100_000)))

    def refuse(path: Path, text: str) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Path, "write_text", refuse)
    with inotify.Watch() as watch:
        Quotas(tmp_path, Watches(watch)).restore("/kubepods/pod1", "default/1")
    assert caplog.messages == [
        f"could not restore the CPU quota of pod default/1: {file}: Invalid argument;"
        " it has no CPU limit"
    ]


async def test_missing_cgroup_is_logged_once_for_a_pod(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with inotify.Watch() as watch:
        quotas = Quotas(tmp_path, Watches(watch))
        for _ in range(2):
            quotas.lift("kubepods-pod1.slice", "default/1", lambda: None)
            quotas.lift("", "default/2", lambda: None)
    assert caplog.messages == [
        "could not find the cgroup of pod default/1: no kubepods.slice/kubepods-pod1.slice below"
        f" {tmp_path}; its CPU quota is not lifted"
    ]


async def test_quota_that_cannot_be_watched_is_lifted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "kubepods/pod1/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text("10000 100000")
    with inotify.Watch() as watch:
        monkeypatch.setattr(watch, "add_file", refuse)
        Quotas(tmp_path, Watches(watch)).lift("/kubepods/pod1", "default/1", lambda: None)
    assert file.read_text() == "max"
    assert (
        f"could not watch {file}: No space left on device; if the kubelet sets the CPU quota of"
        " pod default/1 again, it is not lifted"
    ) in caplog.messages


async def test_quota_that_cannot_be_lifted_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise OSError(22, "Invalid argument")

    file = tmp_path / "kubepods/pod1/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text("10000 100000")
    monkeypatch.setattr(Path, "write_text", refuse)
    with inotify.Watch() as watch:
        Quotas(tmp_path, Watches(watch)).lift("/kubepods/pod1", "default/1", lambda: None)
    assert caplog.messages[-1] == (
        f"could not lift the CPU quota of pod default/1: {file}: Invalid argument;"
        " its containers are throttled"
    )


@pytest.mark.parametrize("ends_before", ["it is watched", "it is written"])
async def test_pod_that_ends_while_its_quota_is_lifted_is_no_fault(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    ends_before: str,
) -> None:
    def end(*arguments: object) -> None:
        shutil.rmtree(tmp_path / "kubepods")
        raise OSError(2, "No such file or directory")

    file = tmp_path / "kubepods/pod1/cpu.max"
    file.parent.mkdir(parents=True)
    file.write_text("10000 100000")
    with inotify.Watch() as watch:
        if ends_before == "it is watched":
            monkeypatch.setattr(watch, "add_file", end)
        else:
            monkeypatch.setattr(Path, "write_text", end)
        Quotas(tmp_path, Watches(watch)).lift("/kubepods/pod1", "default/1", lambda: None)
    assert caplog.messages == []
