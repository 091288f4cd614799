"""Busy loops: a load on the host, as at boot, when all services start at once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def busy_loops(number: int) -> Iterator[None]:
    """Runs this number of processes that never sleep, at the default priority."""
    loops = [subprocess.Popen([sys.executable, "-ISc", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
