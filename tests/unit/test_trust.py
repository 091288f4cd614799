"""Which files a command of root trusts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isolcpus_dp.host import trust
from isolcpus_dp.host.files import Unseen

NOBODY = 65534
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file in a directory of its own; only their owner can write them."""
    (tmp_path / "directory").mkdir(mode=0o755)
    path = tmp_path / "directory/config.yaml"
    path.write_text("a: 1\n")
    path.chmod(0o644)
    return path


def test_file_that_only_root_can_write_is_read(file: Path) -> None:
    assert trust.text(file) == "a: 1"
    assert trust.names(file.parent) == ["config.yaml"]


def test_missing_file_and_directory_are_empty(file: Path) -> None:
    assert trust.text(file.parent / "other") == ""
    assert trust.text(file / "below") == ""
    assert trust.names(file.parent / "other") == []


@root_only
def test_file_of_another_user_is_not_trusted(file: Path) -> None:
    os.chown(file, NOBODY, -1)
    with pytest.raises(Unseen) as error:
        trust.text(file)
    assert str(error.value) == (
        f"{file} is not trusted: {file} belongs to user 65534; run chown root {file}"
    )


@root_only
def test_directory_of_another_user_is_not_trusted(file: Path) -> None:
    os.chown(file.parent, NOBODY, -1)
    with pytest.raises(Unseen, match=f"{file.parent} belongs to user 65534"):
        trust.text(file)
    with pytest.raises(Unseen, match=f"{file.parent} belongs to user 65534"):
        trust.names(file.parent)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_file_that_others_can_write_is_not_trusted(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(Unseen) as error:
        trust.text(file)
    assert str(error.value) == (
        f"{file} is not trusted: users other than root can write {file}; run chmod go-w {file}"
    )


@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_directory_that_others_can_write_is_not_trusted(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    with pytest.raises(Unseen, match=f"can write {file.parent}; run chmod go-w {file.parent}"):
        trust.text(file)


def test_directory_in_a_sticky_directory_is_trusted(file: Path) -> None:
    (file.parent / "own").mkdir(mode=0o755)
    (file.parent / "own/config.yaml").write_text("b: 2")
    file.parent.chmod(0o1777)
    assert trust.text(file.parent / "own/config.yaml") == "b: 2"


def test_file_and_link_in_a_sticky_directory_are_not_trusted(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (file.parent / "link").symlink_to(tmp_path / "other")
    file.parent.chmod(0o1777)
    for path in (file, file.parent / "link"):
        with pytest.raises(Unseen, match=f"all users can create files in {file.parent}"):
            trust.text(path)


def test_link_is_followed_to_a_trusted_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to(file)
    (tmp_path / "relative").symlink_to("directory/../directory")
    assert trust.text(tmp_path / "absolute") == "a: 1"
    assert trust.text(tmp_path / "relative/config.yaml") == "a: 1"


def test_link_that_others_can_replace_is_not_trusted(file: Path, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/link").symlink_to(file)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "safe").symlink_to(tmp_path / "open/link")
    with pytest.raises(Unseen, match=f"users other than root can write {tmp_path}/open"):
        trust.text(tmp_path / "safe")


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Unseen, match="Too many levels of symbolic links"):
        trust.text(tmp_path / "a")


def test_pipe_device_and_directory_are_no_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(Unseen, match=f"^{path} is not a regular file$"):
            trust.text(path)


def test_large_file_is_not_read(file: Path) -> None:
    file.write_text("#" * (1 << 20))
    assert len(trust.text(file)) == 1 << 20
    file.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(Unseen, match=f"^{file} is not read: it has more than 1 MiB$"):
        trust.text(file)


def test_directory_with_too_many_names_is_not_read(file: Path) -> None:
    for number in range(1000):
        (file.parent / str(number)).touch()
    with pytest.raises(Unseen, match=f"^{file.parent} is not read: it has more than 1000 names$"):
        trust.names(file.parent)
