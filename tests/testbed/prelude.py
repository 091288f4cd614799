"""Code that a daemon's process runs first, see `Host.command`: the host fails, or lets it wait."""

from __future__ import annotations

from pathlib import Path

from tests.testbed.wait import until

# The kernel gives the process no inotify instance.
USED_UP_LIMITS = """
import errno, os
from isolcpus_dp.host import inotify
def fail(watch):
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
inotify.Watch.__enter__ = fail
"""


class Pause:
    """A point at which a process waits until the test lets it go on.

    `prelude` defines pause(), which waits.
    """

    def __init__(self, directory: Path) -> None:
        self._reached = directory / "reached"
        self._over = directory / "over"
        self.prelude = (
            "import pathlib, time\n"
            "def pause():\n"
            f"    pathlib.Path({str(self._reached)!r}).touch()\n"
            "    deadline = time.monotonic() + 20\n"
            f"    while not pathlib.Path({str(self._over)!r}).exists():\n"
            "        assert time.monotonic() < deadline, 'paused for too long'\n"
            "        time.sleep(0.01)\n"
        )

    async def reached(self) -> None:
        """Waits until the process is at this point."""
        await until(self._reached.exists)

    def end(self) -> None:
        """Lets the process go on, now and whenever it comes here again."""
        self._over.touch()
