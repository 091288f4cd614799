"""Configuration files that an editor has saved in another encoding."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp import config
from isolcpus_dp.config import ConfigError

TEXT = "[Plugin]\nGranularity=core\n"


@pytest.fixture
def main(tmp_path: Path) -> Path:
    return tmp_path / "isolcpus-dp.conf"


def error_of(main: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(main, 7)
    return str(caught.value)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-8-sig", "UTF-8"),
        ("utf-16", "UTF-16"),
        ("utf-32", "UTF-32"),
    ],
)
def test_byte_order_mark_is_named(main: Path, encoding: str, name: str) -> None:
    main.write_text(TEXT, encoding=encoding)
    assert error_of(main) == (
        f"{main}: begins with a byte order mark of {name}; save the file as UTF-8 without a byte"
        " order mark"
    )


@pytest.mark.parametrize("mark", [b"\xfe\xff", b"\x00\x00\xfe\xff"])
def test_byte_order_mark_may_have_either_order(main: Path, mark: bytes) -> None:
    main.write_bytes(mark + b"\x00[")
    assert f"{main}: begins with a byte order mark of UTF-" in error_of(main)


def test_byte_order_mark_of_a_drop_in_is_named(main: Path) -> None:
    main.write_text(TEXT)
    drop_in = main.parent / "isolcpus-dp.conf.d" / "10-core.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(TEXT, encoding="utf-8-sig")
    assert error_of(main).startswith(f"{drop_in}: begins with a byte order mark of UTF-8;")


def test_empty_file_with_a_byte_order_mark_is_an_error(main: Path) -> None:
    main.write_bytes(b"\xef\xbb\xbf")
    assert "begins with a byte order mark of UTF-8" in error_of(main)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_other_systems_are_accepted(main: Path, end: str) -> None:
    main.write_bytes(TEXT.replace("\n", end).encode())
    assert [pool.granularity for pool in config.load(main, 7).pools] == ["core"]


@pytest.mark.parametrize(
    ("line", "control"),
    [
        ("RootDirectory=/var\0", "\\x00"),
        ("RootDirectory=/var/lib\x1b[2J/kubelet", "\\x1b"),
        ("# a comment\x7f", "\\x7f"),
    ],
)
def test_control_character_is_refused(main: Path, line: str, control: str) -> None:
    main.write_text(f"[Kubelet]\n{line}\n")
    assert error_of(main) == (f"{main}: line 2 has the control character '{control}'; remove it")


def test_tabs_and_form_feeds_around_lines_are_accepted(main: Path) -> None:
    main.write_text("\f\n[Plugin]\n\tGranularity\t=\tcore\f\n")
    assert [pool.granularity for pool in config.load(main, 7).pools] == ["core"]
