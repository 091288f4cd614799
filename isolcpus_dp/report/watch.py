"""Takes a new Snapshot whenever the host may have changed; waits for events, does not poll."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import hotplug, inotify, machine
from isolcpus_dp.host.machine import Machine
from isolcpus_dp.kubelet import paths
from isolcpus_dp.report import snapshot

if TYPE_CHECKING:
    from isolcpus_dp.host.machine import Machine
    from isolcpus_dp.report.snapshot import Snapshot

# One change causes several events: the kubelet's checkpoint is written and then renamed, one SMT
# sibling follows the other, and a socket is created just before a process answers on it.
_SETTLE_SECONDS = 0.05


async def follow(
    sysfs: Path, config_file: Path | None, kubelet_dir: Path, draw: Callable[[Snapshot], None]
) -> None:
    """Draws the host, and draws it again after each change of it or of the terminal's size.

    Does not return. Raises what snapshot.take() raises.
    """
    machine.read(sysfs)  # raises MachineError if there is nothing to watch
    changed, resized = asyncio.Event(), asyncio.Event()

    def on_resize() -> None:
        resized.set()
        changed.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, on_resize)
    with hotplug.watch(sysfs, changed.set):
        drawn: Snapshot | None = None
        root = kubelet_dir
        while True:
            with allocations(kubelet_dir, root, changed.set) as unseen:
                while True:
                    changed.clear()
                    before: Machine | None = drawn.machine if drawn else None
                    seen = snapshot.take(sysfs, config_file, kubelet_dir, before)
                    if seen.kubelet_root != root:
                        break  # to watch the directories there before it is read
                    seen = replace(seen, unseen=(*seen.unseen, *unseen))
                    if seen != drawn or resized.is_set():
                        draw(seen)
                    resized.clear()
                    drawn = seen
                    await changed.wait()
                    await asyncio.sleep(_SETTLE_SECONDS)
            root = seen.kubelet_root


@contextlib.contextmanager
def allocations(
    kubelet_dir: Path, root: Path, on_change: Callable[[], None]
) -> Iterator[tuple[str, ...]]:
    """Calls `on_change` when allocations may have changed; gives what could not be watched."""
    with inotify.Watch() as watch:
        not_watched = []
        for directory, events in _directories(kubelet_dir, root).items():
            try:
                watch.add(directory, events, on_change)
            except OSError as error:
                not_watched.append(f"changes in {directory}: {error.strerror}")
        yield tuple(not_watched)


def _directories(kubelet_dir: Path, root: Path) -> dict[Path, int]:
    """The kubelet's directories that show changed allocations, with the inotify events to watch."""
    return {
        # The kubelet renames the checkpoint into place on every allocation.
        paths.device_plugins(kubelet_dir): inotify.IN_MOVED_TO | inotify.IN_CREATE,
        # It does not when a pod ends: its devices are freed at the next allocation. But the pod's
        # directory is removed when the pod is no longer reported.
        paths.pods(root): inotify.IN_DELETE,
        # A kubelet that has just started can be asked from then on.
        paths.pod_resources_socket(root).parent: inotify.IN_CREATE,
    }
