"""One configuration without a CPU number gives the right pools on twelve unlike machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp import config, pool
from isolcpus_dp.host import cpulist

from . import machines

FLEET = """
[Pool dpdk]
ResourceName=example.com/dpdk
NUMANodes=0
CoreType=performance
Count=4

[Pool batch]
ResourceName=example.com/batch
CoreType=efficient

[Pool workers]
ResourceName=example.com/workers
Packages=0
Count=2/node
"""

# By machine: the CPUs of [Pool dpdk], [Pool batch], [Pool workers] and [Plugin].
EXPECTED = {
    "1x4x1": ("1-3", "", "", ""),
    "2x16x2": ("1-2,33-34", "", "3,35", "4-15,17-31,36-47,49-63"),
    "2x64x2 with 8 nodes": (
        "1-2,129-130",
        "",
        "3,17,33,49,131,145,161,177",
        "4-15,18-31,34-47,50-63,65-79,81-95,97-111,113-127,"
        "132-143,146-159,162-175,178-191,193-207,209-223,225-239,241-255",
    ),
    "hybrid 8P+16E": ("2-5", "16-31", "6-7", "8-15"),
    "big.LITTLE": ("4-7", "1-3", "", ""),
    "SMT off at boot": ("1-4", "", "5-6", "7,9-15"),
    "offline CPUs": ("1-2,17-18", "", "3,19", "4-7,9-15,20-23,25-31"),
    "no NUMA": ("1-2,9-10", "", "3,11", "4-7,12-15"),
    "memory-only nodes": ("1-2,17-18", "", "3,19", "4-7,9-15,20-23,25-31"),
    "a node without CPUs": ("1-2,17-18", "", "3,19", "4-7,9-15,20-23,25-31"),
    "16 nodes": (
        "1-2,129-130",
        "",
        "3,9,17,25,33,41,49,57,131,137,145,153,161,169,177,185",
        "4-7,10-15,18-23,26-31,34-39,42-47,50-55,58-63,"
        "65-71,73-79,81-87,89-95,97-103,105-111,113-119,121-127,"
        "132-135,138-143,146-151,154-159,162-167,170-175,178-183,186-191,"
        "193-199,201-207,209-215,217-223,225-231,233-239,241-247,249-255",
    ),
    "2048 CPUs": (
        "1-2,1025-1026",
        "",
        "3,1027",
        "4-63,65-127,129-191,193-255,257-319,321-383,385-447,449-511,"
        "513-575,577-639,641-703,705-767,769-831,833-895,897-959,961-1023,"
        "1028-1087,1089-1151,1153-1215,1217-1279,1281-1343,1345-1407,1409-1471,1473-1535,"
        "1537-1599,1601-1663,1665-1727,1729-1791,1793-1855,1857-1919,1921-1983,1985-2047",
    ),
}

# What is said about the pools, where it is not only that there are no efficient cores.
NO_EFFICIENT_CORES = (
    "CoreType=efficient matches no isolated CPU: isolated CPUs have CoreType=performance"
)
NONE_LEFT = "no CPU is left for windriver.com/isolcpus: all isolated CPUs are in [Pool] sections"
WARNINGS = {
    "1x4x1": {
        "dpdk": ["NUMANodes=0 CoreType=performance Count=4: only 3 CPUs are left"],
        "batch": [NO_EFFICIENT_CORES],
        "workers": [
            "no CPU is left for example.com/workers with Packages=0 Count=2/node;"
            " of those that match, 3 in [Pool dpdk]"
        ],
        "isolcpus": [NONE_LEFT],
    },
    "hybrid 8P+16E": {},
    "big.LITTLE": {
        "workers": [
            "no CPU is left for example.com/workers with Packages=0 Count=2/node;"
            " of those that match, 4 in [Pool dpdk] and 3 in [Pool batch]"
        ],
        "isolcpus": [NONE_LEFT],
    },
    "SMT off at boot": {
        "dpdk": [
            "CPU 17-23 is offline because SMT is off, and in no pool until it comes online",
        ],
        "batch": [NO_EFFICIENT_CORES],
        "workers": [
            "CPU 25-31 is offline and in no pool until it comes online: whether it has Packages=0"
            " Count=2/node is unknown",
        ],
    },
}


def fleet(directory: Path, last: int) -> config.Config:
    file = directory / "isolcpus-dp.conf"
    file.write_text(FLEET)
    return config.load(file, last)


@pytest.mark.parametrize("name", machines.MACHINES)
def test_same_configuration_gives_the_right_pools(tmp_path: Path, name: str) -> None:
    host = machines.read(name)
    plugin, *pools = pool.make(host, fleet(tmp_path, host.last))
    assert tuple(cpulist.render(one.cpus) for one in (*pools, plugin)) == EXPECTED[name]
    assert {
        one.resource_name.partition("/")[2]: list(one.warnings)
        for one in (plugin, *pools)
        if one.warnings
    } == WARNINGS.get(name, {"batch": [NO_EFFICIENT_CORES]})


def test_every_machine_has_expected_pools() -> None:
    assert list(EXPECTED) == list(machines.MACHINES)


def test_every_machine_keeps_a_core_of_each_node() -> None:
    for name in machines.MACHINES:
        host = machines.read(name)
        kept = [one for one in host.cpus.values() if one.cpu not in host.isolated]
        assert len({one.siblings for one in kept if one.placed}) == len({one.node for one in kept})
