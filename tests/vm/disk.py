"""ext4 disks made from a directory, without mounting anything."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_disk(disk: Path, content: Path, size: int) -> None:
    """A sparse file system image of `size` bytes that holds what is in `content`."""
    with disk.open("wb") as file:
        file.truncate(size)
    # What is left to the first mount by default would compete with the tests for the guest's CPUs.
    now = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-E", now, "-d", content, disk], check=True)
