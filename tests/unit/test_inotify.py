"""inotify: callbacks for watched entries and files, and after lost events."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path

import pytest

from isolcpus_dp.host import inotify

PATIENCE = 10  # seconds until a waiting test fails


async def test_only_the_named_entry_is_reported(tmp_path: Path) -> None:
    named, others = asyncio.Event(), asyncio.Event()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with inotify.Watch() as watch:
        watch.add(tmp_path / "a", inotify.IN_CREATE, named.set, "online")
        watch.add(tmp_path / "b", inotify.IN_CREATE, others.set)
        (tmp_path / "a" / "offline").touch()
        (tmp_path / "b" / "offline").touch()
        await asyncio.wait_for(others.wait(), PATIENCE)
        assert not named.is_set()
        (tmp_path / "a" / "online").touch()
        await asyncio.wait_for(named.wait(), PATIENCE)


async def test_write_to_a_watched_file_is_reported(tmp_path: Path) -> None:
    file, written = tmp_path / "cpu.max", asyncio.Event()
    file.write_text("max")
    with inotify.Watch() as watch:
        watch.add_file(file, inotify.IN_MODIFY, written.set)
        file.write_text("10000 100000")
        await asyncio.wait_for(written.wait(), PATIENCE)


async def test_lost_events_count_as_changes_of_everything(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    busy, quiet = tmp_path / "busy", tmp_path / "quiet"
    busy.mkdir()
    quiet.mkdir()
    changed = asyncio.Event()
    with inotify.Watch() as watch:
        watch.add(busy, inotify.IN_CREATE | inotify.IN_DELETE, lambda: None)
        watch.add(quiet, inotify.IN_CREATE, changed.set, "kubelet.sock")
        for _ in range(limit // 2 + 1):
            (busy / "file").touch()
            (busy / "file").unlink()
        await asyncio.wait_for(changed.wait(), PATIENCE)


async def test_removed_directory_is_no_longer_watched(tmp_path: Path) -> None:
    directory, created, removed = tmp_path / "watched", asyncio.Event(), asyncio.Event()
    directory.mkdir()
    with inotify.Watch() as watch:
        watch.add(directory, inotify.IN_CREATE, created.set)
        watch.add(tmp_path, inotify.IN_DELETE, removed.set, "watched")
        directory.rmdir()
        await asyncio.wait_for(removed.wait(), PATIENCE)
        assert not created.is_set()


async def test_only_an_existing_directory_can_be_watched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with inotify.Watch() as watch:
        with pytest.raises(FileNotFoundError):
            watch.add(tmp_path / "absent", inotify.IN_CREATE, lambda: None)
        with pytest.raises(NotADirectoryError):
            watch.add(tmp_path / "file", inotify.IN_CREATE, lambda: None)


async def test_closed_watch_keeps_no_callback(tmp_path: Path) -> None:
    changed = asyncio.Event()
    kept = weakref.ref(changed)
    with inotify.Watch() as watch:
        watch.add(tmp_path, inotify.IN_CREATE, changed.set)
    del changed
    assert kept() is None
