"""What holds for the claims of any pools, on any of the machines, with any CPUs offline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from isolcpus_dp import pool
from isolcpus_dp.config import Config, Count, PoolConfig
from isolcpus_dp.host.devices import Location
from isolcpus_dp.nri import pinning

from . import machines
from .pools import claimed, configured

NUMBERS = st.frozensets(st.integers(0, 3), min_size=1)
POOLS = st.builds(
    PoolConfig,
    cpus=st.none() | st.frozensets(st.integers(0, 31), min_size=1),
    numa_nodes=st.none() | NUMBERS,
    packages=st.none() | NUMBERS,
    core_type=st.sampled_from([None, "performance", "efficient"]),
    near=st.sampled_from([None, "eth0"]),
    count=st.none() | st.builds(Count, st.integers(1, 12), st.booleans()),
)
SMALL = [name for name in machines.MACHINES if name not in ("2048 CPUs", "16 nodes")]


def without_count(config: Config) -> Config:
    return Config(tuple(replace(one, count=None) for one in config.pools))


@given(
    name=st.sampled_from(SMALL),
    pools=st.lists(POOLS, max_size=4),
    node=st.none() | st.integers(0, 2),
)
def test_pools_are_disjoint_and_the_order_decides(
    name: str, pools: Iterable[PoolConfig], node: int | None
) -> None:
    host, config = machines.read(name), configured(*pools)
    near = {"eth0": Location(node)}
    claims = pool.claim(host, config, near)
    of = [claims.of(one) for one in config.pools]
    assert sum(map(len, of)) == len(frozenset().union(*of))
    assert frozenset().union(*of) <= host.isolated & host.present
    # A pool has what it has without the pools after it.
    for number in range(len(config.pools)):
        fewer = Config(config.pools[: number + 1])
        assert pool.claim(host, fewer, near).of(fewer.pools[number]) == of[number] or number == 0
    # Without Count=, it has what it would have alone, less what the pools before it have.
    config = without_count(config)
    claims, before = pool.claim(host, config, near), frozenset[int]()
    for one in config.pools[1:]:
        alone = pool.claim(host, Config((PoolConfig(), one)), near).of(one)
        # An offline CPU may be in no pool, because it may belong to an earlier one.
        assert claims.of(one) & host.online == (alone - before) & host.online
        before |= claims.of(one)
    assert pool.claim(host, config, near, claims) == claims
    assert len(pool.make(host, config, claims)) == len(config.pools)


@given(
    pools=st.lists(POOLS, max_size=4),
    offline=st.sets(st.integers(1, 31)),
    later=st.sets(st.integers(1, 31)),
)
def test_pinning_daemon_accepts_every_cpu_of_the_device_plugin(
    pools: Iterable[PoolConfig], offline: set[int], later: set[int]
) -> None:
    """Both start at any time, with any CPUs offline, and a device may have gone meanwhile."""
    config = configured(*pools)
    host = machines.read("hybrid 8P+16E")
    here = machines.without(host, offline)
    made = pool.make(here, config, pool.claim(here, config, {"eth0": Location(0)}))
    rules = pinning.rules(machines.without(host, later), config, host.present, frozenset())
    for one in made:
        assert one.cpus <= rules.pools[one.resource_name].cpus


@given(offline=st.sets(st.integers(1, 31)), per_node=st.booleans())
def test_claims_do_not_depend_on_offline_cpus(offline: set[int], per_node: bool) -> None:
    """If one core with all threads is online on each node, of a machine with one kind of cores."""
    config = configured(
        PoolConfig(count=Count(6, per_node=per_node)),
        PoolConfig(packages=frozenset({1}), count=Count(3, per_node=False)),
        PoolConfig(core_type="performance", numa_nodes=frozenset({0})),
    )
    host = machines.read("memory-only nodes")
    online = claimed(host, config)
    assert claimed(machines.without(host, offline - {8, 16, 24}), config) == online
