"""The daemons of a simulated host as processes: `serve`, the device plugin, and `pin`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Literal

from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.plugins import Registration
from isolcpus_dp.simulator.supervisor import Supervisor, Worker
from tests.testbed.host import RESOURCE, Host
from tests.testbed.runtime import Runtime

Subcommand = Literal["serve", "pin"]

_SYSTEMD = Path(__file__).parents[2] / "systemd"
_UNITS = {"serve": "isolcpus-dp.service", "pin": "isolcpus-dp-pin.service"}


def supervisor(
    host: Host,
    subcommand: Subcommand,
    configuration: str | None = "",
    *,
    environment: Mapping[str, str] | None = None,
    prelude: str = "",
) -> Supervisor:
    """Runs a daemon with a configuration file that has this text; None for the default file.

    `environment` is `plain_environment()` by default; `prelude` is as in `Host.command`.
    """
    options = () if configuration is None else ("--config", host.configure(configuration))
    command = host.command(subcommand, *options, prelude=prelude)
    return Supervisor(command, host.directory, environment or plain_environment())


def plain_environment() -> dict[str, str]:
    """The environment of this process without JOURNAL_STREAM, so that the log is plain text."""
    return {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}


def unit_environment(host: Host, subcommand: Subcommand) -> dict[str, str]:
    """The environment that the daemon's unit sets, with a watchdog.

    JOURNAL_STREAM names the log file, so that the daemon loads its journal handler.
    """
    log = host.directory / "log"
    log.touch()
    assigned = dict(
        assignment.split("=", 1) for assignment in unit_setting(subcommand, "Environment").split()
    )
    stream = f"{log.stat().st_dev}:{log.stat().st_ino}"
    return {**os.environ, **assigned, "WATCHDOG_USEC": "30000000", "JOURNAL_STREAM": stream}


def unit_setting(subcommand: Subcommand, name: str) -> str:
    """The value of a setting in the daemon's unit."""
    lines = (_SYSTEMD / _UNITS[subcommand]).read_text().splitlines()
    [value] = [line[len(name) + 1 :] for line in lines if line.startswith(f"{name}=")]
    return value


def is_ready(worker: Worker) -> bool:
    """Whether the process has sent READY=1 to systemd."""
    return worker.ready is not None


def is_registered(worker: Worker) -> bool:
    """Whether the process has registered with a kubelet."""
    return worker.registered is not None


@contextlib.asynccontextmanager
async def registered(daemon: Supervisor, kubelet: Kubelet) -> AsyncIterator[Supervisor]:
    """Runs the device plugin; the block begins when the kubelet has its devices."""
    async with daemon.running():
        await first_devices(kubelet)
        await daemon.worker(is_registered)
        yield daemon


async def first_devices(kubelet: Kubelet) -> Registration:
    """Waits for the first ListAndWatch message, and returns the times of the registration."""
    return await kubelet.registration(RESOURCE)


async def has_devices(kubelet: Kubelet, healthy: int = 4, resource: str = RESOURCE) -> None:
    """Waits until the kubelet has this number of healthy devices of a resource."""
    await kubelet.until(lambda: kubelet.allocatable(resource) == healthy)


@contextlib.asynccontextmanager
async def connected(daemon: Supervisor, runtime: Runtime) -> AsyncIterator[Supervisor]:
    """Runs the pinning daemon; the block begins when it is synchronized with the runtime."""
    async with daemon.running():
        await runtime.until_connected()
        yield daemon
