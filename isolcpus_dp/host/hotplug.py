"""Tells when CPUs come and go: CPU hotplug, by the kernel's uevents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyudev

from isolcpus_dp.host import inotify


@contextlib.contextmanager
def watch(sysfs: Path, on_change: Callable[[], None]) -> Iterator[None]:
    """Calls `on_change` from the event loop whenever a CPU may have changed.

    A tree that is no real sysfs, such as the simulator's made-up machines, has no kernel that
    would send uevents: there a new `online` file is the sign.
    """
    # The counter of the very uevents that are waited for.
    real = (sysfs / "kernel" / "uevent_seqnum").exists()
    with _uevents(on_change) if real else _online_file(sysfs, on_change):
        yield


@contextlib.contextmanager
def _uevents(on_change: Callable[[], None]) -> Iterator[None]:
    # From the kernel and not from udevd, which passes events on when it has dealt with them.
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    monitor.filter_by("cpu")
    monitor.start()

    def read() -> None:
        try:
            # None is an event of another subsystem. Whatever is left calls read() again.
            changed = monitor.poll(timeout=0) is not None
        except OSError:
            changed = True  # ENOBUFS: events were lost, and one of them may have been a CPU's
        if changed:
            on_change()

    loop = asyncio.get_running_loop()
    loop.add_reader(monitor.fileno(), read)
    try:
        yield
    finally:
        loop.remove_reader(monitor.fileno())


@contextlib.contextmanager
def _online_file(sysfs: Path, on_change: Callable[[], None]) -> Iterator[None]:
    events = inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO
    with inotify.Watch() as watch:
        watch.add(sysfs / "devices" / "system" / "cpu", events, on_change, "online")
        yield
