"""The note of replaced quotas on the cgroup of a pod."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isolcpus_dp.nri import notes
from isolcpus_dp.nri.notes import Note, Quota, Replaced


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    try:
        os.setxattr(tmp_path, "user.test", b"")
    except OSError:
        pytest.skip("this file system has no extended attributes; that of cgroups has")
    return tmp_path


def test_note_is_read_as_it_was_written(directory: Path) -> None:
    note = Note(Quota(10_000), {"a1": Replaced(Quota(-1), 5_000), "b2": Replaced(Quota(7, 8), -1)})
    notes.write(directory, note)
    assert notes.read(directory) == note
    assert os.getxattr(directory, "user.isolcpus-dp.quota") == (
        b"pod 10000 100000\na1 -1 100000 5000\nb2 7 8 -1"
    )


def test_empty_note_is_no_attribute(directory: Path) -> None:
    notes.write(directory, Note())
    notes.write(directory, Note(Quota(10_000)))
    notes.write(directory, Note())
    assert os.listxattr(directory) == ["user.test"]


@pytest.mark.parametrize("text", ["", "pod", "pod x y", "a1 1 2", "pod 1 2\na1 1 2 3 4", "\n"])
def test_invalid_note_is_an_empty_one(directory: Path, text: str) -> None:
    os.setxattr(directory, "user.isolcpus-dp.quota", text.encode())
    assert notes.read(directory) == Note()


def test_removed_cgroup_has_no_note(tmp_path: Path) -> None:
    assert notes.read(tmp_path / "removed") == Note()
    with pytest.raises(FileNotFoundError):
        notes.write(tmp_path / "removed", Note(Quota(10_000)))
