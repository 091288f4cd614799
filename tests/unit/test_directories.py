"""The way to a directory: waiting for each of its parts, and noticing that it leads elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from isolcpus_dp.host import directories, inotify
from isolcpus_dp.host.directories import DirectoryWatch

PATIENCE = 10  # seconds until a waiting test fails


class Mount(Protocol):
    """Mounts an empty file system at a directory, or another directory."""

    def __call__(self, target: Path, source: Path | None = None) -> None: ...


@pytest.fixture
def mount() -> Iterator[Mount]:
    mounted: list[Path] = []

    def mount_at(target: Path, source: Path | None = None) -> None:
        what = ["--bind", source] if source else ["-t", "tmpfs", "none"]
        result = subprocess.run(["mount", *what, target], capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"this user may not mount: {result.stderr.strip()}")
        mounted.append(target)

    yield mount_at
    for target in reversed(mounted):
        subprocess.run(["umount", target], check=True)


async def test_existing_directory_is_present_at_once(tmp_path: Path) -> None:
    await asyncio.wait_for(directories.present(tmp_path), PATIENCE)


async def test_directory_is_awaited_part_by_part(tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(directories.present(tmp_path / "a" / "b" / "c"))
    for part in ("a", "a/b", "a/b/c"):
        await asyncio.sleep(0.05)
        assert not waiting.done()
        (tmp_path / part).mkdir()
    await asyncio.wait_for(waiting, PATIENCE)


async def test_relative_path_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    waiting = asyncio.ensure_future(directories.present(Path("a/b")))
    await asyncio.sleep(0.05)
    (tmp_path / "a" / "b").mkdir(parents=True)
    await asyncio.wait_for(waiting, PATIENCE)


async def test_directory_is_awaited_while_its_parents_come_and_go(tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(directories.present(tmp_path / "a" / "b"))
    for _ in range(3):
        await asyncio.sleep(0.05)
        (tmp_path / "a").mkdir()
        await asyncio.sleep(0.05)
        (tmp_path / "a").rmdir()
    await asyncio.sleep(0.05)
    assert not waiting.done()
    (tmp_path / "a" / "b").mkdir(parents=True)
    await asyncio.wait_for(waiting, PATIENCE)


async def test_directory_behind_a_link_is_awaited(tmp_path: Path) -> None:
    waiting = asyncio.ensure_future(directories.present(tmp_path / "link" / "b"))
    await asyncio.sleep(0.05)
    (tmp_path / "link").symlink_to("../" + tmp_path.name + "/target")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    (tmp_path / "target" / "b").mkdir(parents=True)
    await asyncio.wait_for(waiting, PATIENCE)


async def test_file_in_place_of_a_directory_is_not_present(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    waiting = asyncio.ensure_future(directories.present(tmp_path / "a" / "b"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    (tmp_path / "a").unlink()
    (tmp_path / "a" / "b").mkdir(parents=True)
    await asyncio.wait_for(waiting, PATIENCE)


async def test_links_that_form_a_loop_are_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    waiting = asyncio.ensure_future(directories.present(tmp_path / "a" / "c"))
    await asyncio.sleep(0.05)
    (tmp_path / "a").unlink()
    (tmp_path / "a" / "c").mkdir(parents=True)
    await asyncio.wait_for(waiting, PATIENCE)


def remove(root: Path) -> None:
    shutil.rmtree(root / "kubelet" / "device-plugins")


def recreate(root: Path) -> None:
    remove(root)
    (root / "kubelet" / "device-plugins").mkdir()


def move(root: Path) -> None:
    (root / "kubelet").rename(root / "moved")


def link_elsewhere(root: Path) -> None:
    move(root)
    (root / "other" / "device-plugins").mkdir(parents=True)
    (root / "kubelet").symlink_to("other")


def relink(root: Path) -> None:
    """Replaces a link on the way by rename(2), which removes nothing by its name."""
    (root / "other" / "kubelet" / "device-plugins").mkdir(parents=True)
    (root / "new").symlink_to("other")
    (root / "new").rename(root / "link")


@pytest.mark.parametrize("change", [remove, recreate, move, link_elsewhere, relink])
async def test_changed_way_means_that_the_directory_is_replaced(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    (tmp_path / "kubelet" / "device-plugins").mkdir(parents=True)
    (tmp_path / "link").symlink_to(".")
    path = tmp_path / "link" / "kubelet" / "device-plugins"
    with inotify.Watch() as watch, DirectoryWatch(path, watch) as way:
        (tmp_path / "unrelated").mkdir()
        (path / "kubelet.sock").touch()
        await asyncio.sleep(0.05)
        assert not way.changed.is_set()
        change(tmp_path)
        await asyncio.wait_for(way.changed.wait(), PATIENCE)
        assert way.replaced


@pytest.mark.parametrize("at", ["kubelet", "kubelet/device-plugins"])
async def test_mounted_file_system_means_that_the_directory_is_replaced(
    tmp_path: Path, at: str, mount: Mount
) -> None:
    path = tmp_path / "kubelet" / "device-plugins"
    path.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    with inotify.Watch() as watch, DirectoryWatch(path, watch) as way:
        mount(tmp_path / "elsewhere")
        await asyncio.sleep(0.1)
        assert not way.changed.is_set()
        mount(tmp_path / at)
        await asyncio.wait_for(way.changed.wait(), PATIENCE)
        assert way.replaced


async def test_directory_on_a_file_system_mounted_later_is_awaited(
    tmp_path: Path, mount: Mount
) -> None:
    (tmp_path / "source" / "device-plugins").mkdir(parents=True)
    (tmp_path / "kubelet").mkdir()
    waiting = asyncio.ensure_future(directories.present(tmp_path / "kubelet" / "device-plugins"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    mount(tmp_path / "kubelet", tmp_path / "source")
    await asyncio.wait_for(waiting, PATIENCE)
