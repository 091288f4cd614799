"""The keys that select the CPUs of a pool by what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.config import Config, ConfigError, Count, PoolConfig, load
from isolcpus_dp.pool import attributes

NAME = "ResourceName=example.com/a\n"


def loaded(directory: Path, text: str) -> Config:
    file = directory / "isolcpus-dp.conf"
    file.write_text(text)
    return load(file, 31)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("NUMANodes=0", "numa_nodes", {0}),
        ("NUMANodes=0,2-3", "numa_nodes", {0, 2, 3}),
        ("Packages=1", "packages", {1}),
        ("CoreType=performance", "core_type", "performance"),
        ("CoreType=efficient", "core_type", "efficient"),
        ("Near=0000:3B:00.0", "near", "0000:3b:00.0"),
        ("Near=10000:e1:00.7", "near", "10000:e1:00.7"),
        ("Near=enp59s0f0np0", "near", "enp59s0f0np0"),
        ("Count=8", "count", Count(8, per_node=False)),
        ("Count=8/node", "count", Count(8, per_node=True)),
    ],
)
def test_pool_needs_one_attribute(tmp_path: Path, line: str, field: str, value: object) -> None:
    _, one = loaded(tmp_path, f"[Pool a]\n{NAME}{line}\n").pools
    expected = {"section": "Pool a", "resource_name": "example.com/a", field: value}
    assert one == PoolConfig(**expected)  # type: ignore[arg-type]
    assert attributes.selection(one) == line.replace("3B", "3b")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("NUMANodes=all", "'all' is neither a number nor a range; use the numbers of NUMA nodes,"),
        ("NUMANodes=3-2", "'3-2' is neither a number nor a range; use the numbers of NUMA nodes,"),
        ("Packages=x", "'x' is neither a number nor a range; use the numbers of packages,"),
        ("CoreType=big", "unknown value; use performance or efficient"),
        ("Near=3b:00.0", "not a PCI address with domain, bus, device and function; use a PCI"),
        ("Near=0000:3b:00.8", "not a PCI address with domain, bus, device and function; use a PCI"),
        ("Near=../eth0", "not the name of a network interface; use a PCI address such as"),
        ("Near=..", "not the name of a network interface; use a PCI address such as"),
        ("Near=sixteen-letters-", "not the name of a network interface; use a PCI address such as"),
        ("Count=0", "not a number of CPUs; use a number of CPUs such as 8, or 8/node"),
        ("Count=8/package", "not a number of CPUs; use a number of CPUs such as 8, or 8/node"),
    ],
)
def test_wrong_attribute_is_an_error(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, f"[Pool a]\n{NAME}{line}\n")
    assert f"isolcpus-dp.conf: [Pool a] {line}: {reason}" in str(raised.value)


def test_plugin_takes_attributes_too(tmp_path: Path) -> None:
    [plugin] = loaded(tmp_path, "[Plugin]\nNUMANodes=1\n").pools
    assert plugin == PoolConfig(numa_nodes=frozenset({1}))


def test_same_number_in_two_pools_is_an_error_with_attributes_too(tmp_path: Path) -> None:
    text = f"[Pool a]\n{NAME}CPUs=2-3\nNUMANodes=0\n[Pool b]\nResourceName=example.com/b\nCPUs=3\n"
    with pytest.raises(ConfigError, match=r"CPU 3 is also in .*; assign each CPU to one pool"):
        loaded(tmp_path, text)


def test_pools_are_in_the_order_of_the_files(tmp_path: Path) -> None:
    drop_ins = tmp_path / "isolcpus-dp.conf.d"
    drop_ins.mkdir()
    (drop_ins / "10.conf").write_text("[Pool a]\nResourceName=example.com/c\nCount=1\n")
    (drop_ins / "20.conf").write_text("[Pool z]\nCount=2\n[Plugin]\nMixed=yes\n")
    pools = loaded(tmp_path, f"[Pool z]\n{NAME}Count=3\n").pools
    assert [one.section for one in pools] == ["Plugin", "Pool z", "Pool a"]
