"""The file of a picture is replaced atomically, and only if it is safe."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isolcpus_dp.report.map import PictureError, svg

from .conftest import MakeUp


def write(make_up: MakeUp, tmp_path: Path, file: Path) -> None:
    made_up = make_up("1x2x1", {1})
    svg.write(made_up.root, None, tmp_path / "kubelet", file)


def test_svg_file_is_replaced_without_leftovers(make_up: MakeUp, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    (directory / "old.svg").write_text("old")
    (directory / "link.svg").symlink_to("old.svg")
    write(make_up, tmp_path, directory / "link.svg")
    assert (directory / "old.svg").read_text(encoding="utf-8").startswith("<svg")
    assert (directory / "link.svg").is_symlink()
    assert sorted(os.listdir(directory)) == ["link.svg", "old.svg"]  # noqa: PTH208


def test_link_of_another_user_is_not_followed(
    make_up: MakeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "precious").write_text("old")
    (tmp_path / "map.svg").symlink_to("precious")
    if os.geteuid() == 0:
        os.chown(tmp_path / "map.svg", 65534, 65534, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(PictureError, match="is a symbolic link of another user"):
        write(make_up, tmp_path, tmp_path / "map.svg")
    assert (tmp_path / "precious").read_text() == "old"


def test_link_at_the_temporary_file_is_not_followed(make_up: MakeUp, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("old")
    (tmp_path / f".map.svg.{os.getpid()}").symlink_to("precious")
    with pytest.raises(PictureError, match="cannot be written: File exists"):
        write(make_up, tmp_path, tmp_path / "map.svg")
    assert (tmp_path / "precious").read_text() == "old"


@pytest.mark.parametrize("name", ["nowhere/map.svg", "n" * 300])
def test_file_that_cannot_be_written_is_named(make_up: MakeUp, tmp_path: Path, name: str) -> None:
    with pytest.raises(PictureError, match=f"{name} cannot be written"):
        write(make_up, tmp_path, tmp_path / name)


def test_device_is_not_replaced_by_a_file(make_up: MakeUp, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="is not a regular file"):
        write(make_up, tmp_path, Path("/dev/null"))
