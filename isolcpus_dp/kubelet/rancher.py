"""The arguments that k3s and RKE2 give to the kubelet, from their own configuration.

k3s contains the kubelet and hides its own arguments from /proc. Both read config.yaml and
config.yaml.d, whose keys are the names of their options, and their command line after them. The
option kubelet-arg has the flags of the kubelet (k3s: pkg/configfilearg/parser.go). Since 1.32 they
write the kubelet's configuration files, and copies of those that kubelet-arg names, to a directory
for --config-dir (k3s: pkg/daemons/agent/agent.go).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isolcpus_dp.host import daemons, trust
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import document, flags
from isolcpus_dp.kubelet.flags import Arguments

# By the name of a process: the distribution.
PROCESSES = {"k3s-server": "k3s", "k3s-agent": "k3s", "k3s": "k3s", "rke2": "rke2"}
# By distribution and role: the unit whose ExecStart= has the arguments.
_UNITS = {
    ("k3s", "server"): "k3s.service",
    ("k3s", "agent"): "k3s-agent.service",
    ("rke2", "server"): "rke2-server.service",
    ("rke2", "agent"): "rke2-agent.service",
}
_LONG = {"c": "config", "d": "data-dir"}  # their short options

# By a unit's name: its properties. Raises Unseen.
ShowUnit = Callable[[str], Mapping[str, str]]
# By name: the values of an option, in order.
_Options = dict[str, list[str]]


@dataclass(frozen=True)
class Places:
    """The directories that contain one for each distribution; tests replace them."""

    etc: Path = Path("/etc/rancher")
    lib: Path = Path("/var/lib/rancher")


USUAL = Places()


def no_unit(_name: str) -> Mapping[str, str]:
    """Instead of systemd, where it is not asked."""
    return {}


def role(proc: Path, pid: int) -> str:
    """Whether a process is a server or an agent; empty if it is another command. Raises Unseen."""
    # Its title has both in one string: /usr/local/bin/k3s server
    words = " ".join(daemons.arguments(proc, pid)).split()
    return next((word for word in words[1:2] if word in ("server", "agent")), "")


def of(proc: Path, pid: int, name: str, places: Places, show_unit: ShowUnit) -> Arguments:
    """The arguments of the kubelet of a running k3s or RKE2. Raises Unseen."""
    distribution = PROCESSES[name]
    environment: dict[str, str] = {}
    with contextlib.suppress(Unseen):  # not shown to the sandboxed daemon
        environment = daemons.environment(proc, pid)
    words = daemons.arguments(proc, pid)[1:]
    if not any(word.startswith("-") for word in words):
        unit = _UNITS.get((distribution, role(proc, pid)))
        words = _started_with(unit, show_unit) if unit else []
    resolve = functools.partial(daemons.absolute, proc, pid)
    return _arguments(distribution, places, environment, words, resolve)


def installed(places: Places) -> Arguments | None:
    """The arguments of the kubelet that would be started; None if neither is configured.

    Raises Unseen.
    """
    for name in dict.fromkeys(PROCESSES.values()):
        configuration = places.etc / name / "config.yaml"
        drop_ins = configuration.with_name("config.yaml.d")
        if configuration.exists() or drop_ins.is_dir() or _managed(places.lib / name).is_dir():
            return _arguments(name, places, {}, [], Path("/").joinpath)
    return None


def _arguments(
    name: str,
    places: Places,
    environment: Mapping[str, str],
    words: Sequence[str],
    resolve: Callable[[str], Path],
) -> Arguments:
    prefix = name.upper()
    given = _parse(words)
    configuration = (
        environment.get(f"{prefix}_CONFIG_FILE")
        or _last(given, "config")
        or str(places.etc / name / "config.yaml")
    )
    if configuration.startswith(("http://", "https://")):
        raise Unseen(f"{name} reads its configuration from {configuration}, which is not read here")
    options = _read(resolve(configuration))
    for option, values in given.items():
        options[option] = [*options.get(option, []), *values]
    data = Path(
        _last(options, "data-dir")
        or environment.get(f"{prefix}_DATA_DIR")
        or str(places.lib / name)
    )
    node = _last(options, "node-name") or environment.get(f"{prefix}_NODE_NAME", "")
    found = {"hostname-override": node} if node else {}
    own = flags.parse([f"--{word.lstrip('-')}" for word in options.get("kubelet-arg", [])])
    managed = _managed(data)
    if managed.is_dir():
        # The files that these name were copied to it.
        own = {flag: value for flag, value in own.items() if flag not in ("config", "config-dir")}
        found["config-dir"] = str(managed)
    else:
        found["pod-manifest-path"] = str(data / "agent/pod-manifests")
    return Arguments(configuration, {**found, **flags.absolute(own, resolve)})


def _managed(data: Path) -> Path:
    """The directory that k3s and RKE2 give to the kubelet as --config-dir, since 1.32."""
    return data / "agent/etc/kubelet.conf.d"


def _read(file: Path) -> _Options:
    """The options in a configuration file and its drop-ins. Raises Unseen.

    A later file replaces the values of an option, or adds to them if its name ends with "+".
    """
    directory = file.with_name(f"{file.name}.d")
    drop_ins = [directory / name for name in trust.names(directory)]
    options: _Options = {}
    for path in [file, *(one for one in drop_ins if one.suffix.lower() in (".yaml", ".yml"))]:
        for key, value in document.read(path).items():
            name = str(key)
            values = _texts(value)
            if name.endswith("+"):
                values = [*options.get(name[:-1], []), *values]
            options[name.rstrip("+")] = values
    return options


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(one) for one in values if one is not None]


def _parse(words: Sequence[str]) -> _Options:
    """The options in a command line, given as --name=value or --name value."""
    options: _Options = {}
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if name.startswith("-"):
            name = name.lstrip("-")
            options.setdefault(_LONG.get(name, name), []).append(value if equals else following)
    return options


def _last(options: _Options, name: str) -> str:
    return (options.get(name) or [""])[-1]


def _started_with(unit: str, show_unit: ShowUnit) -> list[str]:
    """The arguments in a unit's ExecStart=, as systemd shows it; none if it does not answer."""
    try:
        shown = show_unit(unit).get("ExecStart", "")
    except Unseen:
        return []
    return shown.partition(" argv[]=")[2].partition(" ; ")[0].split()[1:]
