"""Files of sysfs that end oddly, are absent for a moment, or cannot be read."""

from __future__ import annotations

import errno
import os
import weakref

import pytest

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.machine import MachineError, is_current, nodes_with_memory, read

from .conftest import MakeUp


def test_files_may_end_in_a_zero_byte(make_up: MakeUp) -> None:
    made_up = make_up("2x2x2", {2, 3, 6, 7})
    before = read(made_up.root)
    files = [path for path in (made_up.root / "devices/system").rglob("*") if path.is_file()]
    assert len(files) > 50
    for path in files:
        path.write_bytes(path.read_bytes().rstrip() + b"\n\0")
    assert read(made_up.root) == before
    assert is_current(made_up.root, before)


@pytest.mark.parametrize("text", [b"", b"\n", b"\0", b"\n\0", b" \n", b"\0\n\0"])
def test_empty_list_names_no_cpu(make_up: MakeUp, text: bytes) -> None:
    made_up = make_up("1x2x1", {1})
    (made_up.directory / "isolated").write_bytes(text)
    assert read(made_up.root).isolated == set()


@pytest.mark.parametrize("text", [b"1\x002\n", b"\x001\n", b"1,\n", b"(null)\n", b"0x3\n"])
def test_list_with_anything_else_is_an_error(make_up: MakeUp, text: bytes) -> None:
    made_up = make_up("1x2x1", {1})
    (made_up.directory / "isolated").write_bytes(text)
    with pytest.raises(MachineError, match="cpu/isolated is not a CPU list"):
        read(made_up.root)


@pytest.mark.parametrize(
    "name",
    [
        "cpu/present",
        "cpu/possible",
        "cpu/online",
        "cpu/isolated",
        "cpu/cpu1/topology/core_id",
        "cpu/cpu1/topology/core_cpus_list",
        "cpu/cpu1/cache/index0/level",
        "cpu/cpu1/cache/index3/shared_cpu_list",
        "node/online",
        "node/node0/distance",
    ],
)
def test_file_that_cannot_be_read_is_not_absent(make_up: MakeUp, name: str) -> None:
    made_up = make_up("2x2x2", {2, 3, 6, 7})
    path = made_up.root / "devices/system" / name
    path.unlink()
    path.mkdir()  # reading it is an error for every user, also for root
    with pytest.raises(MachineError) as caught:
        read(made_up.root)
    assert str(caught.value) == f"cannot read {path}: Is a directory"


def test_directory_that_cannot_be_read_is_not_absent(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    path = made_up.directory / "cpu1/cache"
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    path.rmdir()
    path.symlink_to("cache")
    with pytest.raises(MachineError) as caught:
        read(made_up.root)
    assert str(caught.value) == f"cannot read {path}: Too many levels of symbolic links"


def test_nodes_with_memory_need_a_readable_file(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    (made_up.root / "devices/system/node/has_memory").unlink(missing_ok=True)
    assert nodes_with_memory(made_up.root) == set()
    (made_up.root / "devices/system/node/has_memory").mkdir()
    with pytest.raises(MachineError, match="has_memory: Is a directory"):
        nodes_with_memory(made_up.root)


@pytest.mark.parametrize(
    ("number", "is_absent"),
    [
        (errno.ENODEV, True),
        (errno.ENXIO, True),
        (errno.EIO, False),
        (errno.EACCES, False),
        (errno.EMFILE, False),
        (errno.ENOMEM, False),
    ],
)
def test_only_some_errors_mean_that_a_cpu_went_offline(
    make_up: MakeUp, monkeypatch: pytest.MonkeyPatch, number: int, is_absent: bool
) -> None:
    root = make_up("1x2x1", {1}).root
    open_file = os.open

    def fail_for_the_core(path: str, flags: int) -> int:
        if path.endswith("cpu1/topology/core_id"):
            raise OSError(number, os.strerror(number))
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", fail_for_the_core)
    if is_absent:
        assert read(root).cpus[1].core is None
        return
    with pytest.raises(MachineError) as caught:
        read(root)
    assert str(caught.value) == (
        f"cannot read {root}/devices/system/cpu/cpu1/topology/core_id: {os.strerror(number)}"
    )


def test_list_longer_than_a_page_is_read_to_its_end(make_up: MakeUp) -> None:
    made_up = make_up("1x2x1", {1})
    even = range(0, 8192, 2)
    (made_up.directory / "possible").write_text(cpulist.render(even) + "\n")
    assert read(made_up.root).possible == {1, *even}


def test_cpus_of_an_earlier_machine_are_not_kept(make_up: MakeUp) -> None:
    made_up = make_up("1x4x1", {2, 3})
    isolated = weakref.ref(read(made_up.root).isolated)
    read(made_up.root)
    assert isolated() is None
