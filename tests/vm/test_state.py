"""Guests that resume from a saved state behave as if each had been booted separately."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from .guest import Guest
from .image import Image
from .qemu import Machine
from .state import (
    ISOLATED,
    KEPT_STATES,
    State,
    UnusableState,
    files_disk,
    remove_outdated,
    resumed,
    saved,
    start,
)


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    file = tmp_path_factory.mktemp("files") / "name"
    file.write_text("of the first guest")
    return [file]


def test_guests_have_separate_disks_and_files(guest: Guest, image: Image, tmp_path: Path) -> None:
    guest.run("touch /root/mark /etc/mark && sync")
    (tmp_path / "name").write_text("of the second guest")
    with start(image, files=[tmp_path / "name"], log=tmp_path / "console") as second:
        assert second.run("cat /mnt/files/name").stdout == "of the second guest"
        second.run("test ! -e /root/mark -a ! -e /etc/mark && touch /root/mark && sync")
    with start(image, log=tmp_path / "console") as third:
        third.run("test ! -e /root/mark -a ! -e /mnt/files/name")
    assert guest.run("cat /mnt/files/name").stdout == "of the first guest"


def test_resumed_guest_has_the_time_of_the_host(image: Image, tmp_path: Path) -> None:
    log = tmp_path / "console"
    age = time.time() - saved(Machine(image, ISOLATED), log).memory.stat().st_mtime
    time.sleep(max(0, 20 - age))
    with start(image, log=log) as guest:
        before = time.time()
        clock = float(guest.run("date +%s.%N").stdout)
    assert before - 10 < clock < time.time() + 1


def test_truncated_state_is_not_used(image: Image, tmp_path: Path) -> None:
    machine = Machine(image, ISOLATED)
    complete, truncated = saved(machine, tmp_path / "console"), State(tmp_path / "half")
    truncated.folder.mkdir()
    shutil.copy(complete.disk, truncated.disk)
    truncated.memory.write_bytes(
        complete.memory.read_bytes()[: complete.memory.stat().st_size // 2]
    )
    with (
        pytest.raises(UnusableState, match="load of migration failed"),
        resumed(machine, truncated, files_disk((), tmp_path), tmp_path / "console"),
    ):
        pass


def test_oldest_states_are_removed(tmp_path: Path) -> None:
    for age in range(KEPT_STATES + 2):
        state = tmp_path / str(age)
        state.mkdir()
        (state / "memory").touch()
        os.utime(state, (1000 - age, 1000 - age))
    remove_outdated(tmp_path)
    assert sorted(state.name for state in tmp_path.iterdir()) == ["0", "1", "2", "3"]
