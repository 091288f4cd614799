"""Code that a daemon's process runs first (see `Host.command`), to simulate errors and delays."""

from __future__ import annotations

from pathlib import Path

from tests.testbed.wait import until

# Simulates that the limit of inotify instances is reached.
USED_UP_LIMITS = """
import errno, os
from isolcpus_dp.host import inotify
def fail(watch):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
inotify.Watch.__enter__ = fail
"""


class Pause:
    """A point at which a process waits until the test calls `end`.

    `prelude` defines the function pause(), which waits.
    """

    def __init__(self, directory: Path) -> None:
        self._reached = directory / "reached"
        self._ended = directory / "ended"
        self.prelude = (
            "import pathlib, time\n"
            "def pause():\n"
            f"    pathlib.Path({str(self._reached)!r}).touch()\n"
            "    deadline = time.monotonic() + 20\n"
            f"    while not pathlib.Path({str(self._ended)!r}).exists():\n"
            "        assert time.monotonic() < deadline, 'paused for too long'\n"
            "        time.sleep(0.01)\n"
        )

    async def reached(self) -> None:
        """Waits until the process is at this point."""
        await until(self._reached.exists)

    def end(self) -> None:
        """Lets the process continue. It does not wait at this point again."""
        self._ended.touch()
