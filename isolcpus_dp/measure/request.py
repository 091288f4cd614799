"""What is asked for: the options of `isolcpus-dp measure`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.kubelet import paths

if TYPE_CHECKING:
    from types import SimpleNamespace


class RequestError(Exception):
    """The request cannot be met by this host at any time; the message is one sentence."""


class Refused(Exception):
    """The request cannot be met now; the message is one sentence."""


@dataclass(frozen=True)
class Host:
    """Where the host's CPUs, its configuration and its kubelet are found."""

    sysfs: Path
    config_file: Path | None
    kubelet_dir: Path


@dataclass(frozen=True)
class Request:
    """One measurement, as the operator wants it."""

    host: Host
    seconds: float
    cpus: str | None = None  # a CPU list; None: all free isolated CPUs
    limit_us: float | None = None
    watch_owned: bool = False
    json: bool = False
    svg: Path | None = None
    compare: Path | None = None


def make(options: SimpleNamespace) -> Request:
    """The request in the options. Raises RequestError."""
    host = Host(options.sysfs, options.config, options.kubelet_dir)
    if host.kubelet_dir != paths.DEFAULT_DIRECTORY and not host.kubelet_dir.is_dir():
        # An empty answer would mean that no CPU has an owner.
        raise RequestError(f"--kubelet-dir {host.kubelet_dir}: there is no such directory")
    return Request(
        host,
        options.duration,
        options.cpus,
        options.limit,
        options.watch_owned,
        options.json,
        options.svg,
        options.compare,
    )
