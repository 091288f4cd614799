"""What the administrator says, checked: `isolcpus-dp.conf` and its drop-ins.

The files are read the way systemd reads its own: the main file first, then the drop-ins in the
order of their names, the last assignment of a key wins, an empty one brings the default back.
"""

from __future__ import annotations

import configparser
import contextlib
import itertools
import re
import socket
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Union

from isolcpus_dp.host import cpulist

DEFAULT_FILE = Path("/etc/isolcpus-dp/isolcpus-dp.conf")
GRANULARITIES = ("cpu", "core")
THREADS = ("all", "one")
PLACEMENTS = ("packed", "spread")
DEVICE_NODES = ("auto", "yes", "no")
MEMORY_NODES = ("any", "local")
CPU_QUOTAS = ("unlimited", "keep")

PLUGIN, PINNING, METRICS = "Plugin", "Pinning", "Metrics"
_HEADER = re.compile(r"\[[^]]*\](\s+#.*)?")
_POOL = re.compile(r"Pool [A-Za-z0-9][-A-Za-z0-9_.]*")

# An address and a port of TCP, or the path of a unix socket.
Listen = Union[tuple[str, int], Path]

# Kubernetes' rules for names (apimachinery's validation.go): DNS-1123 subdomain, qualified name.
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class ConfigError(Exception):
    """A file that cannot be used: file, section, key, value, and what is allowed."""


@dataclass(frozen=True)
class PoolConfig:
    """What is said about one resource."""

    section: str = PLUGIN  # where it is said: Plugin, or Pool and a name
    resource_name: str = "windriver.com/isolcpus"
    cpus: frozenset[int] | None = None  # None: all that are isolated and in no other pool
    granularity: str = "cpu"  # one of GRANULARITIES
    threads: str = "all"  # one of THREADS
    placement: str = "packed"  # one of PLACEMENTS
    mixed: bool = False  # the owner may also use the housekeeping CPUs
    device_nodes: str = "auto"  # one of DEVICE_NODES

    @property
    def endpoint(self) -> str:
        """The name of the plugin's socket in the kubelet's folder."""
        return f"{self.resource_name.replace('/', '-')}.sock"


@dataclass(frozen=True)
class PinningConfig:
    """What is said about the CPUs that containers may run on."""

    keep_others_off: bool = True
    memory_nodes: str = "any"  # one of MEMORY_NODES
    cpu_quota: str = "unlimited"  # one of CPU_QUOTAS


@dataclass(frozen=True)
class Config:
    """All that the administrator can say; [Plugin] is the first of the pools."""

    pools: tuple[PoolConfig, ...] = (PoolConfig(),)
    pinning: PinningConfig = PinningConfig()
    metrics: Listen | None = None  # where they are served


class _Key(NamedTuple):
    """One key: the field it fills, how its text is read, and what that accepts, in words."""

    field: str
    parse: Callable[[str, int], Any]  # text and the machine's last CPU; raises ValueError
    allowed: str


class _Section:
    """What the files say in one section, and where: the last assignment of a key wins."""

    def __init__(self, path: Path, name: str) -> None:
        self.where = f"{path}: [{name}]"
        self.name = name
        self._keys = {PINNING: PINNING_KEYS, METRICS: METRICS_KEYS}.get(name, KEYS)
        self.values: dict[str, Any] = {}
        self.lines: dict[str, str] = {}  # by field: file, section, key and text

    def set(self, path: Path, name: str, text: str, last: int) -> None:
        key = self._keys.get(name)
        if key is None:
            raise ConfigError(
                f"{path}: [{self.name}] {name}= is not a key: allowed are {', '.join(self._keys)}"
            )
        line = f"{path}: [{self.name}] {name}={text}"
        self.values.pop(key.field, None)
        if not text:
            return
        try:
            self.values[key.field] = key.parse(text, last)
        except ValueError as error:
            raise ConfigError(f"{line}: {error}: allowed is {key.allowed}") from error
        self.lines[key.field] = line

    def pool(self) -> PoolConfig:
        """Raises ConfigError if its keys do not make a pool."""
        if self.name != PLUGIN:
            for name in ("ResourceName", "CPUs"):
                if self.values.get(KEYS[name].field) is None:
                    raise ConfigError(
                        f"{self.where} has no {name}= of its own: a pool is a resource name and"
                        " a CPU list, such as example.com/isolcpus-dpdk and 4-7"
                    )
        pool = PoolConfig(section=self.name, **self.values)
        if pool.threads == "one" and pool.granularity != "core":
            raise ConfigError(
                f"{self.lines['threads']}: a device is one thread anyway:"
                " allowed with Granularity=core"
            )
        return pool


def load(file: Path | None, last: int) -> Config:
    """The configuration in `file` and `file.d/*.conf`; the default one if None.

    `last` is the machine's highest possible CPU. That the default file is not there is fine; a
    file that was named must be. Raises ConfigError.
    """
    main = file or DEFAULT_FILE
    sections = {PLUGIN: _Section(main, PLUGIN)}
    for path in _files(main, must_exist=file is not None):
        _read_into(sections, path, last)
    pinning, metrics = sections.pop(PINNING, None), sections.pop(METRICS, None)
    pools = [(section, section.pool()) for section in sections.values()]
    for (section, pool), (other_section, other) in itertools.combinations(pools, 2):
        _check_apart(section, pool, other_section, other)
    return Config(
        pools=tuple(pool for _, pool in pools),
        pinning=PinningConfig(**pinning.values) if pinning else PinningConfig(),
        metrics=metrics.values.get("listen") if metrics else None,
    )


def _files(main: Path, must_exist: bool) -> list[Path]:
    """The main file and its drop-ins, in the order they are read in. Raises ConfigError."""
    folder = main.parent / f"{main.name}.d"
    there, names = False, list[str]()
    # What is not there is asked for here alone: is_file() may say so of what may not be looked at.
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            there = stat.S_ISREG(main.stat().st_mode)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise ConfigError(f"{error.filename}: {_reason(error)}") from error
    if must_exist and not there:
        raise ConfigError(f"{main}: there is no such file: --config takes a configuration file")
    # As systemd does: what an editor hides while it is at work is no drop-in.
    drop_ins = sorted(name for name in names if name.endswith(".conf") and name[0] != ".")
    return [*([main] if there else []), *(folder / name for name in drop_ins)]


def _check_apart(
    section: _Section, pool: PoolConfig, other_section: _Section, other: PoolConfig
) -> None:
    """Two pools share neither CPUs nor names. Raises ConfigError."""
    shared = (pool.cpus or frozenset()) & (other.cpus or frozenset())
    if shared:
        raise ConfigError(
            f"{other_section.lines['cpus']}: CPU {cpulist.render(shared)} is also in"
            f" {section.lines['cpus']}: a CPU belongs to one pool"
        )
    # The names of the sockets are compared: a/b-c and a-b/c would have the same one.
    if pool.endpoint == other.endpoint:
        of = section.lines.get("resource_name", f"the default of {section.where}")
        raise ConfigError(
            f"{other_section.lines['resource_name']}: the name, or its socket's name"
            f" {pool.endpoint}, is taken by {of}: allowed is one that no other pool has"
        )


def _read_into(sections: dict[str, _Section], path: Path, last: int) -> None:
    parser = configparser.ConfigParser(
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=("#",),
        default_section="",  # configparser's [DEFAULT] is not a section of ours
        interpolation=None,
        empty_lines_in_values=False,
        strict=False,
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        # Blanks before a key mean nothing to systemd; configparser would go on with the key above.
        lines = [line.strip() for line in path.read_text(encoding="utf-8").split("\n")]
        _check_headers(path, lines)
        parser.read_string("\n".join(lines), source=str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from error
    for name in parser.sections():
        if name not in (PLUGIN, PINNING, METRICS) and not _POOL.fullmatch(name):
            raise ConfigError(
                f"{path}: [{name}] is not a section: allowed are [Plugin], [Pinning], [Metrics],"
                " and [Pool NAME] with a name of letters, digits, '-', '_' and '.'"
            )
        section = sections.setdefault(name, _Section(path, name))
        for key, text in parser[name].items():
            section.set(path, key, text, last)


def _check_headers(path: Path, lines: Iterable[str]) -> None:
    """configparser passes over what follows a [section] in its line. Raises ConfigError."""
    for number, line in enumerate(lines, start=1):
        if line.startswith("[") and not _HEADER.fullmatch(line):
            raise ConfigError(
                f"{path}: line {number}, {line!r}, is neither [Section] nor Key=value"
            )


def _reason(error: Exception) -> str:
    """What a file's reader complains of, in one line."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} stands before any [section]: allowed is [Plugin] first"
    if isinstance(error, configparser.ParsingError):
        line, text = error.errors[0]
        return f"line {line}, {text}, is neither [Section] nor Key=value"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8 text"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def check_resource_name(text: str) -> None:
    """Checks a name as the kubelet does when a plugin registers (IsExtendedResourceName).

    Raises ValueError.
    """
    domain, slash, name = text.partition("/")
    if not slash or not _NAME.fullmatch(name) or not _DOMAIN.fullmatch(domain):
        raise ValueError("is not a domain, a slash and a name")
    # The kubelet looks for it anywhere in the text, so also for example.kubernetes.io.
    if "kubernetes.io/" in text or text.startswith("requests."):
        raise ValueError("is reserved by Kubernetes")
    # It checks the name as the quota resource "requests.NAME", whose domain may have 253 letters.
    if len(domain) > 253 - len("requests.") or len(name) > 63:
        raise ValueError("is too long")


def _resource_name(text: str, _last: int) -> str:
    check_resource_name(text)
    return text


def _cpus(text: str, last: int) -> frozenset[int] | None:
    return None if text == "isolated" else cpulist.parse_configured(text, last)


def _one_of(*choices: str) -> Callable[[str, int], str]:
    def parse(text: str, _last: int) -> str:
        if text not in choices:
            raise ValueError("is no such choice")
        return text

    return parse


def _yes_or_no(text: str, _last: int) -> bool:
    return _one_of("yes", "no")(text, _last) == "yes"


def _listen(text: str, _last: int) -> Listen:
    if text.startswith("/"):
        return Path(text)
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("is no address to listen on")
    # Names are not looked up: the plugin would have to wait for a name server.
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        if ":" in address:
            # Whether there is such a zone, as in fe80::1%eth0, is seen when it is listened on.
            socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
        else:
            socket.inet_pton(socket.AF_INET, address)
    except OSError:
        raise ValueError("is no address to listen on") from None
    return address, int(port)


# Of [Plugin] and of every [Pool NAME].
KEYS = {
    "ResourceName": _Key(
        "resource_name",
        _resource_name,
        "a lower-case domain of at most 244 letters that is not kubernetes.io,"
        " a slash, and a name of at most 63 letters, digits, '-', '_' and '.',"
        " such as windriver.com/isolcpus",
    ),
    "CPUs": _Key("cpus", _cpus, "isolated, or a CPU list such as 2-3,6-7"),
    "Granularity": _Key("granularity", _one_of(*GRANULARITIES), "cpu or core"),
    "Threads": _Key("threads", _one_of(*THREADS), "all or one"),
    "Placement": _Key("placement", _one_of(*PLACEMENTS), "packed or spread"),
    "Mixed": _Key("mixed", _yes_or_no, "yes or no"),
    "DeviceNodes": _Key("device_nodes", _one_of(*DEVICE_NODES), "auto, yes or no"),
}

PINNING_KEYS = {
    "KeepOthersOff": _Key("keep_others_off", _yes_or_no, "yes or no"),
    "MemoryNodes": _Key("memory_nodes", _one_of(*MEMORY_NODES), "any or local"),
    "CPUQuota": _Key("cpu_quota", _one_of(*CPU_QUOTAS), "unlimited or keep"),
}

METRICS_KEYS = {
    "Listen": _Key(
        "listen",
        _listen,
        "an IP address and a port such as 127.0.0.1:9497, or the path of a unix socket",
    ),
}
