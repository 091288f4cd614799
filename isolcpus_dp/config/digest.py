"""A digest of a configuration, with which a daemon says which one it uses.

It depends on the values of the keys only: not on comments, on the files, or on the order of lines.
It depends on the order of sections if pools are selected by attribute.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isolcpus_dp.config.keys import KEYS, KUBELET, METRICS, PINNING, PLUGIN
from isolcpus_dp.host import cpulist

if TYPE_CHECKING:
    from isolcpus_dp.config.keys import Config, Key


def fingerprint(settings: Config) -> str:
    """Eight hexadecimal digits; the same for the same configuration in every process."""
    pools = list(settings.pools)
    # With attributes, the order of the sections decides which pool has which CPUs.
    if not any(pool.by_attribute for pool in pools):
        pools.sort(key=lambda pool: pool.section)
    lines = [line for pool in pools for line in _section(pool.section, KEYS[PLUGIN], pool)]
    lines += _section(PINNING, KEYS[PINNING], settings.pinning)
    lines += _section(METRICS, KEYS[METRICS], settings)
    lines += _section(KUBELET, KEYS[KUBELET], settings.kubelet)
    # No cryptographic hash: hashlib loads OpenSSL, which takes 0.5 MiB of each daemon's memory.
    return format(zlib.crc32("\n".join(lines).encode()), "08x")


def _section(name: str, keys: Mapping[str, Key], values: object) -> list[str]:
    assignments = [f"{key.name}={_text(getattr(values, key.field))}" for key in keys.values()]
    return [f"[{name}]", *assignments]


def _text(value: Any) -> str:
    """A value as text. A set has no order, so it is rendered as a list."""
    return f"CPU {cpulist.render(value)}" if isinstance(value, frozenset) else str(value)
