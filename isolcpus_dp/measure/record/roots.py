"""Where the recorder reads and writes. Tests give directories of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Roots:
    """The file systems of the kernel, and the directory for notes."""

    sysfs: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    tracefs: Path = Path("/sys/kernel/tracing")
    # Has the note of settings that must be restored. They do not survive a reboot, nor does it.
    run: Path = Path("/run")
