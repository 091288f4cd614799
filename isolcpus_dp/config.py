"""What the administrator says, checked: `isolcpus-dp.conf` and its drop-ins.

The files are read the way systemd reads its own: the main file first, then the drop-ins in the
order of their names, the last assignment of a key wins, an empty one brings the default back.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from isolcpus_dp import cpulist

DEFAULT_FILE = Path("/etc/isolcpus-dp/isolcpus-dp.conf")
DEVICE_NODES = ("auto", "yes", "no")

# Kubernetes' rules for names (apimachinery's validation.go): DNS-1123 subdomain, qualified name.
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


class ConfigError(Exception):
    """A file that cannot be used: file, section, key, value, and what is allowed."""


@dataclass(frozen=True)
class PoolConfig:
    """What is said about one resource."""

    resource_name: str = "windriver.com/isolcpus"
    cpus: frozenset[int] | None = None  # None: all that are isolated
    device_nodes: str = "auto"  # one of DEVICE_NODES


@dataclass(frozen=True)
class Config:
    """All that the administrator can say."""

    plugin: PoolConfig = PoolConfig()


@dataclass(frozen=True)
class _Key:
    """One key: the field it fills, how its text is read, and what that accepts, in words."""

    field: str
    parse: Callable[[str, int], Any]  # text and the machine's last CPU; raises ValueError
    allowed: str


def load(file: Path | None, last: int) -> Config:
    """The configuration in `file` and `file.d/*.conf`; the default one if None.

    `last` is the machine's highest possible CPU. That the default file is not there is fine; a
    file that was named must be. Raises ConfigError.
    """
    main = file or DEFAULT_FILE
    if file and not file.is_file():
        raise ConfigError(f"{file}: there is no such file: --config takes a configuration file")
    drop_ins = sorted(main.parent.glob(f"{main.name}.d/*.conf"), key=lambda path: path.name)
    values: dict[str, Any] = {}
    for path in [main, *drop_ins] if main.is_file() else drop_ins:
        _read_into(values, path, last)
    return Config(plugin=PoolConfig(**values))


def _read_into(values: dict[str, Any], path: Path, last: int) -> None:
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
        lines = path.read_text(encoding="utf-8").splitlines()
        # Blanks before a key mean nothing to systemd; configparser would go on with the key above.
        parser.read_string("\n".join(line.lstrip() for line in lines), source=str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(f"{path}: {_reason(error)}") from error
    for section in parser.sections():
        keys = _SECTIONS.get(section)
        if keys is None:
            _refuse(path, f"[{section}] is not a section", _SECTIONS)
        for name, text in parser[section].items():
            if name not in keys:
                _refuse(path, f"[{section}] {name}= is not a key", keys)
            _set(values, keys[name], text, f"{path}: [{section}] {name}={text}", last)


def _set(values: dict[str, Any], key: _Key, text: str, where: str, last: int) -> None:
    if not text:
        values.pop(key.field, None)
        return
    try:
        values[key.field] = key.parse(text, last)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}: allowed is {key.allowed}") from error


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


def _refuse(path: Path, what: str, known: Mapping[str, Any]) -> NoReturn:
    raise ConfigError(f"{path}: {what}: allowed are {', '.join(known)}")


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


def _device_nodes(text: str, _last: int) -> str:
    if text not in DEVICE_NODES:
        raise ValueError("is no such choice")
    return text


_SECTIONS: dict[str, dict[str, _Key]] = {
    "Plugin": {
        "ResourceName": _Key(
            "resource_name",
            _resource_name,
            "a lower-case domain of at most 244 letters that is not kubernetes.io,"
            " a slash, and a name of at most 63 letters, digits, '-', '_' and '.',"
            " such as windriver.com/isolcpus",
        ),
        "CPUs": _Key("cpus", _cpus, "isolated, or a CPU list such as 2-3,6-7"),
        "DeviceNodes": _Key("device_nodes", _device_nodes, "auto, yes or no"),
    },
}
