"""The conditions of a run: the machine, its software, and the load before the first measurement."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from isolcpus_dp import __version__


@dataclass(frozen=True)
class Conditions:
    """What the figures of a run depend on."""

    day: str  # as 2026-11-29
    processor: str
    cpus: int  # on which the programs may run
    memory_gib: float
    system: str  # the distribution
    kernel: str
    python: str
    grpcio: str
    load: float  # the load average of the minute before the run
    is_root: bool  # otherwise the daemons do not have the priority of their units
    guest: str = ""  # the virtual machine in which the daemons run, if they run in one
    version: str = ""  # of isolcpus-dp; older records have none


def here() -> Conditions:
    """The conditions of this host, now."""
    import grpc  # not at the top: the page is made without it

    now = datetime.now(timezone.utc)
    return read(Path("/proc"), Path("/etc/os-release"), now, grpc.__version__)


def read(proc: Path, os_release: Path, now: datetime, grpcio: str) -> Conditions:
    """The conditions of this host, now; `grpcio` is the version that the daemons use."""
    cpuinfo = (proc / "cpuinfo").read_text()
    [memory_kib] = re.findall(r"^MemTotal: +(\d+) kB$", (proc / "meminfo").read_text(), re.M)
    processor = re.search(r"^model name\s*: (.+)$", cpuinfo, re.M)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', os_release.read_text(), re.M)
    return Conditions(
        day=now.strftime("%Y-%m-%d"),
        processor=processor[1] if processor else platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=round(int(memory_kib) / 1024**2, 1),
        system=system[1] if system else "unknown",
        kernel=platform.release().partition("-")[0],  # without what a distribution adds
        python=platform.python_version(),
        grpcio=grpcio,
        load=float((proc / "loadavg").read_text().split()[0]),
        is_root=os.geteuid() == 0,
        version=__version__,
    )
