"""Tells when a Snapshot of the host may be out of date, without looking again and again."""

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

# One change comes as several: the kubelet's checkpoint is written and then renamed, an SMT
# sibling follows the other, a socket is there a moment before somebody answers on it.
_SETTLE_SECONDS = 0.05


async def follow(
    sysfs: Path, config_file: Path | None, kubelet_dir: Path, draw: Callable[[Snapshot], None]
) -> None:
    """Draws the host, and again when it has changed or the terminal's size has; for ever.

    Raises what snapshot.take() raises.
    """
    machine.read(sysfs)  # says in a sentence when there is nothing to watch
    changed, resized = asyncio.Event(), asyncio.Event()

    def on_resize() -> None:
        resized.set()
        changed.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, on_resize)
    with hotplug.watch(sysfs, changed.set), _allocations(kubelet_dir, changed.set) as unseen:
        drawn: Snapshot | None = None
        while True:
            changed.clear()
            before: Machine | None = drawn.machine if drawn else None
            seen = snapshot.take(sysfs, config_file, kubelet_dir, before)
            seen = replace(seen, unseen=(*seen.unseen, *unseen))
            if seen != drawn or resized.is_set():
                draw(seen)
            resized.clear()
            drawn = seen
            await changed.wait()
            await asyncio.sleep(_SETTLE_SECONDS)


@contextlib.contextmanager
def _allocations(kubelet_dir: Path, on_change: Callable[[], None]) -> Iterator[tuple[str, ...]]:
    """Calls `on_change` when containers may have got CPUs or left some; gives what is not seen."""
    with inotify.Watch() as watch:
        not_watched = []
        for folder, events in _signs(kubelet_dir).items():
            try:
                watch.add(folder, events, on_change)
            except OSError as error:
                not_watched.append(f"changes in {folder}: {error.strerror}")
        yield tuple(not_watched)


def _signs(kubelet_dir: Path) -> dict[Path, int]:
    """Where in the kubelet's folder it shows that somebody got CPUs or left some."""
    return {
        # The checkpoint is renamed into place on every allocation.
        paths.device_plugins(kubelet_dir): inotify.IN_MOVED_TO | inotify.IN_CREATE,
        # Not so when a pod ends: its devices are taken back at the next allocation. But its folder
        # goes when it is no longer told of.
        paths.pods(kubelet_dir): inotify.IN_DELETE,
        # Only then can a kubelet that has just started be asked.
        paths.pod_resources_socket(kubelet_dir).parent: inotify.IN_CREATE,
    }
