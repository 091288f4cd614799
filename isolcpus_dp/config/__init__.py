"""The administrator's configuration: `isolcpus-dp.conf` and its drop-ins.

`load` reads and checks the files as systemd does: the main file first, then the drop-ins in the
order of their names. The last assignment of a key wins; an empty one restores the default.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

from isolcpus_dp.config import files
from isolcpus_dp.config.digest import fingerprint
from isolcpus_dp.config.files import ConfigError
from isolcpus_dp.config.keys import (
    KEYS,
    KUBELET,
    METRICS,
    PINNING,
    PLUGIN,
    Config,
    CoreType,
    CPUQuota,
    DeviceNodes,
    Granularity,
    IncompleteCores,
    Key,
    KubeletConfig,
    MemoryNodes,
    PinningConfig,
    Placement,
    PoolConfig,
    Threads,
)
from isolcpus_dp.config.values import Count, Listen, check_resource_name
from isolcpus_dp.host import cpulist

__all__ = [
    "DEFAULT_FILE",
    "KEYS",
    "CPUQuota",
    "Config",
    "ConfigError",
    "CoreType",
    "Count",
    "DeviceNodes",
    "Granularity",
    "IncompleteCores",
    "Key",
    "KubeletConfig",
    "Listen",
    "MemoryNodes",
    "PinningConfig",
    "Placement",
    "PoolConfig",
    "Threads",
    "check_resource_name",
    "fingerprint",
    "load",
]

DEFAULT_FILE = Path("/etc/isolcpus-dp/isolcpus-dp.conf")
_POOL = re.compile(r"Pool [A-Za-z0-9][-A-Za-z0-9_.]*")


class _Section:
    """The assignments of one section from all files, and where each one is."""

    def __init__(self, path: Path, name: str) -> None:
        self.where = f"{path}: [{name}]"
        self.name = name
        self._keys = KEYS.get(name, KEYS[PLUGIN])
        self.values: dict[str, Any] = {}  # by field
        self.texts: dict[str, str] = {}  # by key
        self.lines: dict[str, str] = {}  # by key: its assignment with file and section

    def set(self, path: Path, name: str, text: str, last: int) -> None:
        key = self._keys.get(name)
        if key is None:
            raise ConfigError(
                f"{path}: [{self.name}] {name}={text}: unknown key;"
                f" use one of {', '.join(self._keys)}"
            )
        if not text:
            self.texts.pop(name, None)
            self.lines.pop(name, None)
            self.values.pop(key.field, None)
            return
        self.texts[name] = text
        self.lines[name] = f"{path}: [{self.name}] {name}={text}"
        try:
            self.values[key.field] = key.value.parse(text, last)
        except ValueError as error:
            raise ConfigError(f"{self.lines[name]}: {error}; use {key.value.allowed}") from error

    def pool(self) -> PoolConfig:
        """The pool that the section describes. Raises ConfigError."""
        if self.name != PLUGIN:
            self._check_complete()
        for name, text in self.texts.items():
            needed = self._keys[name].needs.get(text)
            if needed and not self._is_set(needed):
                raise ConfigError(
                    f"{self.lines[name]} needs {needed}; set it, or remove {name}={text}"
                )
        return PoolConfig(section=self.name, **self.values)

    def _check_complete(self) -> None:
        """A [Pool NAME] section needs a name and CPUs of its own. Raises ConfigError."""
        for key in self._keys.values():
            if key.required and self.values.get(key.field) is None:
                raise ConfigError(
                    f"{self.where} needs a {key.name}= of its own; assign a resource name such as"
                    " example.com/isolcpus-dpdk"
                )
        pool = PoolConfig(**self.values)
        if pool.cpus is None and not pool.by_attribute:
            raise ConfigError(
                f"{self.where} needs CPUs of its own; assign a list such as CPUs=4-7, or at least"
                " one of NUMANodes=, Packages=, CoreType=, Near= and Count="
            )

    def _is_set(self, assignment: str) -> bool:
        """Whether a key has this value, assigned or by default."""
        name, _, text = assignment.partition("=")
        return self.texts.get(name, self._keys[name].default) == text


def load(file: Path | None, last: int) -> Config:
    """The configuration in `file` and `file.d/*.conf`.

    None stands for the default file, which may be missing; a file that is given must exist.
    `last` is the machine's highest possible CPU. Raises ConfigError.
    """
    main = file or DEFAULT_FILE
    sections = {PLUGIN: _Section(main, PLUGIN)}
    for path in files.paths(main, must_exist=file is not None):
        _read_into(sections, path, last)
    pinning, metrics = sections.pop(PINNING, None), sections.pop(METRICS, None)
    kubelet = sections.pop(KUBELET, None)
    pools = [(section, section.pool()) for section in sections.values()]
    for (section, pool), (other_section, other) in itertools.combinations(pools, 2):
        _check_apart(section, pool, other_section, other)
    return Config(
        pools=tuple(pool for _, pool in pools),
        pinning=PinningConfig(**pinning.values) if pinning else PinningConfig(),
        kubelet=KubeletConfig(**kubelet.values) if kubelet else KubeletConfig(),
        **(metrics.values if metrics else {}),
    )


def _check_apart(
    section: _Section, pool: PoolConfig, other_section: _Section, other: PoolConfig
) -> None:
    """Two pools must not share a CPU or a socket name. Raises ConfigError."""
    shared = (pool.cpus or frozenset()) & (other.cpus or frozenset())
    if shared:
        raise ConfigError(
            f"{other_section.lines['CPUs']}: CPU {cpulist.render(shared)} is also in"
            f" {section.lines['CPUs']}; assign each CPU to one pool"
        )
    # Different resource names can have the same socket name: a/b-c and a-b/c.
    if pool.endpoint == other.endpoint:
        holder = section.lines.get("ResourceName", f"the default of {section.where}")
        raise ConfigError(
            f"{other_section.lines['ResourceName']}: the name, or its socket's name"
            f" {pool.endpoint}, is used by {holder}; use a name that differs"
        )


def _read_into(sections: dict[str, _Section], path: Path, last: int) -> None:
    """Adds the assignments of one file. Raises ConfigError."""
    for name, values in files.sections(path).items():
        if name not in KEYS and not _POOL.fullmatch(name):
            raise ConfigError(
                f"{path}: [{name}]: unknown section; use [Plugin], [Pinning], [Metrics], [Kubelet],"
                " or [Pool NAME] with a name of letters, digits, '-', '_' and '.'"
            )
        section = sections.setdefault(name, _Section(path, name))
        for key, text in values.items():
            section.set(path, key, text, last)
