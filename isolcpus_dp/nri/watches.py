"""Watches of files in cgroups that come and go.

The kernel keeps the watch of a file whose cgroup was removed, and the file with it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from isolcpus_dp.host import inotify

_FEW_WATCHES = 16


class Watches:
    """Calls back when files are written; removes the watches of files that no longer exist."""

    def __init__(self, watch: inotify.Watch) -> None:
        self._watch = watch
        self._watched: dict[Path, int] = {}
        # With more watches than this, those of removed cgroups are removed.
        self._enough = _FEW_WATCHES

    def add(self, file: Path, on_write: Callable[[], None]) -> None:
        """Calls `on_write()` whenever the file is written, until it is removed or added again.

        Watches the file and not its directory, in which the kernel modifies files when a pod is
        short of memory. Raises OSError if the file cannot be watched.
        """
        self.remove(file)
        self._watched[file] = self._watch.add_file(file, inotify.IN_MODIFY, on_write)
        if len(self._watched) > self._enough:
            for ended in [known for known in self._watched if not known.exists()]:
                self.remove(ended)
            self._enough = _FEW_WATCHES + 2 * len(self._watched)

    def remove(self, file: Path) -> None:
        """Stops watching a file; one that is not watched is ignored."""
        if file in self._watched:
            self._watch.remove(self._watched.pop(file))
