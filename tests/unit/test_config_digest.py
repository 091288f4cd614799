"""The fingerprint of a configuration: what changes it, and what does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isolcpus_dp import config
from isolcpus_dp.config import KEYS

LAST = 31

# By section: an assignment of every key that differs from the default. Some need Granularity=core,
# which has a line of its own.
CHANGES = {
    "Plugin": {
        "ResourceName": "ResourceName=example.com/rt",
        "CPUs": "CPUs=2-3",
        "NUMANodes": "NUMANodes=0-1",
        "Packages": "Packages=1",
        "CoreType": "CoreType=efficient",
        "Near": "Near=eth0",
        "Count": "Count=8/node",
        "Granularity": "Granularity=core",
        "Threads": "Granularity=core\nThreads=one",
        "IncompleteCores": "Granularity=core\nIncompleteCores=offer",
        "Placement": "Placement=spread",
        "Mixed": "Mixed=yes",
        "DeviceNodes": "DeviceNodes=auto",
    },
    "Pinning": {
        "KeepOthersOff": "KeepOthersOff=no",
        "MemoryNodes": "MemoryNodes=local",
        "CPUQuota": "CPUQuota=keep",
    },
    "Metrics": {"Listen": "Listen=127.0.0.1:9497"},
    "Kubelet": {"RootDirectory": "RootDirectory=/var/lib/k0s/kubelet"},
}

POOLS = """[Plugin]
Placement=spread
[Pool a]
ResourceName=example.com/a
CPUs=4-7,20-23
[Pool b]
ResourceName=example.com/b
CPUs=8-9
"""


def fingerprint(directory: Path, text: str) -> str:
    file = directory / "isolcpus-dp.conf"
    file.write_text(text)
    return config.fingerprint(config.load(file, LAST))


def test_fingerprint_is_eight_hexadecimal_digits(tmp_path: Path) -> None:
    assert fingerprint(tmp_path, "") == "f06d8861"
    assert fingerprint(tmp_path, POOLS) == "6ad0a151"


def test_every_key_is_in_the_table_of_changes() -> None:
    assert {name: set(keys) for name, keys in CHANGES.items()} == {
        name: set(keys) for name, keys in KEYS.items()
    }


@pytest.mark.parametrize(
    ("section", "assignment"),
    [(section, line) for section, lines in CHANGES.items() for line in lines.values()],
)
def test_every_key_changes_the_fingerprint(tmp_path: Path, section: str, assignment: str) -> None:
    *before, _ = assignment.split("\n")
    without = fingerprint(tmp_path, "\n".join([f"[{section}]", *before]))
    assert fingerprint(tmp_path, f"[{section}]\n{assignment}") != without


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CPUs=8-9", "CPUs=8-10"),
        ("example.com/b", "example.com/c"),
        ("[Pool b]", "[Pool c]"),
        ("CPUs=8-9", "CPUs=8-9\nMixed=yes"),
    ],
)
def test_every_pool_changes_the_fingerprint(tmp_path: Path, old: str, new: str) -> None:
    assert fingerprint(tmp_path, POOLS.replace(old, new)) != fingerprint(tmp_path, POOLS)


def test_same_values_have_the_same_fingerprint(tmp_path: Path) -> None:
    # In another order, with comments, and written in another way.
    text = """; comment
    [Pool b]
    CPUs=9,8
    ResourceName=example.com/b
    [Plugin]
    Placement=packed
    Placement=spread    # comment
    CPUs=isolated
    [Pool a]
    CPUs=20-23,4-7
    ResourceName=example.com/a
    [Metrics]
    Listen=
    """
    assert fingerprint(tmp_path, text) == fingerprint(tmp_path, POOLS)


def test_order_of_pools_by_attribute_changes_the_fingerprint(tmp_path: Path) -> None:
    one = "[Pool a]\nResourceName=example.com/a\nCoreType=performance\n"
    other = "[Pool b]\nResourceName=example.com/b\nNUMANodes=0\n"
    assert fingerprint(tmp_path, one + other) != fingerprint(tmp_path, other + one)


def test_drop_in_has_the_fingerprint_of_its_values(tmp_path: Path) -> None:
    directory = tmp_path / "isolcpus-dp.conf.d"
    directory.mkdir()
    whole = fingerprint(tmp_path, POOLS)
    (directory / "50-b.conf").write_text(POOLS[POOLS.index("[Pool b]") :])
    assert fingerprint(tmp_path, POOLS[: POOLS.index("[Pool b]")]) == whole


@pytest.mark.parametrize("seed", ["1", "2"])
def test_fingerprint_does_not_depend_on_the_process(tmp_path: Path, seed: str) -> None:
    """hash() of a text does: the seed is another one in every process."""
    here = fingerprint(tmp_path, POOLS)
    file = tmp_path / "isolcpus-dp.conf"
    code = (
        "import pathlib, sys; from isolcpus_dp import config;"
        "print(config.fingerprint(config.load(pathlib.Path(sys.argv[1]), 31)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, file],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
    )
    assert result.stdout == f"{here}\n"
