"""Writing the files of a plan: all or none, and never those of others."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

import pytest

from isolcpus_dp.plan import write
from isolcpus_dp.plan.part import MARK, File
from isolcpus_dp.plan.write import WriteError

FIRST = File(PurePosixPath("/etc/a.d/90-isolcpus-dp.conf"), f"# {MARK}\na=1\n")
SECOND = File(PurePosixPath("/etc/b.d/90-isolcpus-dp.conf"), f"# {MARK}\nb=1\n")
OLDER = "# Written by isolcpus-dp plan, of another version.\na=0\n"


def below(directory: Path) -> dict[str, str]:
    """By path: the text of all files in a directory."""
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_files_are_written_and_listed(tmp_path: Path) -> None:
    assert write.write([FIRST, SECOND], tmp_path).written == [
        tmp_path / "etc/a.d/90-isolcpus-dp.conf",
        tmp_path / "etc/b.d/90-isolcpus-dp.conf",
    ]
    assert below(tmp_path) == {
        "etc/a.d/90-isolcpus-dp.conf": FIRST.text,
        "etc/b.d/90-isolcpus-dp.conf": SECOND.text,
    }


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        [path], _ = write.write([FIRST], tmp_path)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent, path.parent.parent)]
    assert modes == [0o644, 0o755, 0o755]


def test_our_files_are_replaced_and_equal_ones_kept(tmp_path: Path) -> None:
    first, _ = write.write([FIRST, SECOND], tmp_path).written
    first.write_text(OLDER)
    assert write.write([FIRST, SECOND], tmp_path).written == [first]
    assert first.read_text() == FIRST.text
    assert write.write([FIRST, SECOND], tmp_path) == ([], [])


@pytest.mark.parametrize("text", ["", "a=1\n", "# by hand\n# Written by isolcpus-dp plan\n"])
def test_nothing_is_written_if_one_file_is_of_others(text: str, tmp_path: Path) -> None:
    (tmp_path / "etc/b.d").mkdir(parents=True)
    other = tmp_path / "etc/b.d/90-isolcpus-dp.conf"
    other.write_text(text)
    with pytest.raises(WriteError) as caught:
        write.write([FIRST, SECOND], tmp_path)
    assert str(caught.value) == (
        f"{other} exists and was not written by isolcpus-dp plan, so it is not replaced: move it"
        " away first; nothing was written"
    )
    assert below(tmp_path) == {"etc/b.d/90-isolcpus-dp.conf": text}


def test_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.mkdir()
    (root / "etc/b.d").symlink_to(outside)
    with pytest.raises(WriteError, match="leads out of"):
        write.write([FIRST, SECOND], root)
    assert below(tmp_path) == {}


def test_link_that_stays_inside_is_followed(tmp_path: Path) -> None:
    (tmp_path / "usr/etc").mkdir(parents=True)
    (tmp_path / "etc").symlink_to("usr/etc")
    write.write([FIRST], tmp_path)
    assert below(tmp_path)["usr/etc/a.d/90-isolcpus-dp.conf"] == FIRST.text


@pytest.mark.parametrize("kind", ["link", "directory", "dangling link"])
def test_path_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "etc/a.d/90-isolcpus-dp.conf"
    path.parent.mkdir(parents=True)
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "other")
    if kind == "link":
        (tmp_path / "other").write_text(OLDER)
    with pytest.raises(WriteError, match="is no regular file: remove it first"):
        write.write([FIRST], tmp_path)


def test_failure_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        if "b.d" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="No space left on device"):
        write.write([FIRST, SECOND], tmp_path)
    assert below(tmp_path) == {}


def test_directory_must_exist(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="is not a directory: create it first"):
        write.write([FIRST], tmp_path / "missing")


def test_file_in_place_of_a_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    with pytest.raises(WriteError, match="Not a directory"):
        write.write([FIRST], tmp_path)
