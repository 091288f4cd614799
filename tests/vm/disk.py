"""Creates ext4 disks from a directory, without mounting them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_disk(disk: Path, content: Path, size: int) -> None:
    """Creates a sparse file system image of `size` bytes with the files in `content`."""
    with disk.open("wb") as file:
        file.truncate(size)
    # By default, the first mount initializes the rest, which takes CPU time from the tests.
    now = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["mkfs.ext4", "-q", "-E", now, "-d", content, disk], check=True)
