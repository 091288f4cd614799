"""Configurations with several pools, and the CPUs that the pools claim."""

from __future__ import annotations

from dataclasses import replace

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host import cpulist
from isolcpus_dp.host.devices import Location
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.pool import Claims


def configured(*pools: PoolConfig) -> Config:
    """A configuration with [Plugin] and these pools, which get the names a, b..."""
    named = [
        replace(one, section=f"Pool {name}", resource_name=f"example.com/{name}")
        for one, name in zip(pools, "abcdef")
    ]
    return Config(pools=(PoolConfig(), *named))


def shown(claims: Claims, config: Config) -> list[str]:
    """The CPUs of the pools, those of [Plugin] last."""
    plugin, *pools = config.pools
    return [cpulist.render(claims.of(one)) for one in (*pools, plugin)]


def claimed(host: Machine, config: Config, **near: Location) -> list[str]:
    return shown(pool.claim(host, config, near), config)
