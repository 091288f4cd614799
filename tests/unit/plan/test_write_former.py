"""Files of an earlier plan are removed, and nothing else."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from isolcpus_dp.plan import write
from isolcpus_dp.plan.part import MARK, File
from isolcpus_dp.plan.write import WriteError

NEW = File(PurePosixPath("/etc/a.d/90-isolcpus-dp.conf"), f"# {MARK}\na=1\n")
FORMER = (
    PurePosixPath("/etc/b.d/90-isolcpus-dp.conf"),
    PurePosixPath("/etc/c.d/90-isolcpus-dp.conf"),
)
OURS = "# Written by isolcpus-dp plan, of another version.\na=0\n"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A directory with a file at each of the former paths; the file of the plan is missing."""
    for path in FORMER:
        place = tmp_path / path.relative_to("/")
        place.parent.mkdir(parents=True)
        place.write_text(OURS)
    return tmp_path


def test_files_of_an_earlier_plan_are_removed_and_listed(earlier: Path) -> None:
    changes = write.write([NEW], earlier, FORMER)
    assert changes.written == [earlier / "etc/a.d/90-isolcpus-dp.conf"]
    assert changes.removed == [
        earlier / "etc/b.d/90-isolcpus-dp.conf",
        earlier / "etc/c.d/90-isolcpus-dp.conf",
    ]
    assert [path.name for path in earlier.rglob("*") if path.is_file()] == ["90-isolcpus-dp.conf"]
    assert write.write([NEW], earlier, FORMER) == ([], [])


@pytest.mark.parametrize("text", ["", "a=1\n", "# by hand\n# Written by isolcpus-dp plan\n"])
def test_file_of_others_stays(text: str, earlier: Path) -> None:
    other = earlier / "etc/c.d/90-isolcpus-dp.conf"
    other.write_text(text)
    assert write.write([NEW], earlier, FORMER).removed == [earlier / "etc/b.d/90-isolcpus-dp.conf"]
    assert other.read_text() == text


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory"])
def test_path_that_is_no_file_stays(kind: str, earlier: Path) -> None:
    path = earlier / "etc/b.d/90-isolcpus-dp.conf"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("other")
    if kind == "link":
        (path.parent / "other").write_text(OURS)
    assert write.write([NEW], earlier, FORMER).removed == [earlier / "etc/c.d/90-isolcpus-dp.conf"]
    assert path.is_symlink() or path.is_dir()


def test_file_outside_of_the_directory_stays(earlier: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/b.d").symlink_to(earlier / "etc/b.d")
    (root / "etc/c.d").symlink_to("d.d")
    (root / "etc/d.d").mkdir()
    (root / "etc/d.d/90-isolcpus-dp.conf").write_text(OURS)
    # A link that stays in the directory is followed, as for writing.
    assert write.write([NEW], root, FORMER).removed == [root / "etc/c.d/90-isolcpus-dp.conf"]
    assert (earlier / "etc/b.d/90-isolcpus-dp.conf").read_text() == OURS


def test_file_of_the_plan_by_another_name_stays(tmp_path: Path) -> None:
    """Such as the directory of --config-dir, which is a link to the usual one."""
    (tmp_path / "etc/b.d").mkdir(parents=True)
    (tmp_path / "etc/a.d").symlink_to("b.d")
    path = tmp_path / "etc/a.d/90-isolcpus-dp.conf"
    assert write.write([NEW], tmp_path, FORMER) == ([path], [])
    assert path.read_text() == NEW.text
    assert write.write([NEW], tmp_path, FORMER) == ([], [])


def test_nothing_is_removed_if_a_file_cannot_be_written(earlier: Path) -> None:
    (earlier / "etc/a.d").mkdir()
    (earlier / "etc/a.d/90-isolcpus-dp.conf").write_text("a=2\n")
    with pytest.raises(WriteError, match="nothing was written"):
        write.write([NEW], earlier, FORMER)
    assert [(earlier / path.relative_to("/")).read_text() for path in FORMER] == [OURS, OURS]


def test_failed_removal_says_what_was_done(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def busy(path: Path) -> None:
        if "c.d" in path.parts:
            raise PermissionError(1, "Operation not permitted")
        unlink(path)

    monkeypatch.setattr(Path, "unlink", busy)
    with pytest.raises(WriteError) as caught:
        write.write([NEW], earlier, FORMER)
    assert str(caught.value) == (
        f"could not remove {earlier}/etc/c.d/90-isolcpus-dp.conf, which is left from an earlier"
        " plan: Operation not permitted; all files are as planned; wrote"
        f" {earlier}/etc/a.d/90-isolcpus-dp.conf; removed {earlier}/etc/b.d/90-isolcpus-dp.conf"
    )
