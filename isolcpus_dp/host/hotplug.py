"""CPU hotplug: keeps a Machine up to date when CPUs go offline or come online.

The source is the kernel's uevents. A simulated machine has no kernel; its files are
watched instead.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyudev

from isolcpus_dp.host import inotify, machine
from isolcpus_dp.host.machine import Machine, MachineError

# CPUs go offline and online in batches: the machine is read once for all uevents of this period.
_BATCH_SECONDS = 0.005
# When SMT is switched off, the kernel changes smt/control after the last uevent, and sends none for
# that (cpuhp_smt_disable() in kernel/cpu.c). So the machine is compared once more.
_SETTLED_SECONDS = 0.1


class MachineWatch:
    """Reads the machine whenever a CPU may have changed. A context manager.

    `on_change` is called with each Machine that is read, also if it is the same. `on_error` is
    called if the machine could not be read; `machine` then stays unchanged. `on_uevent` is called
    for each event.
    """

    def __init__(
        self,
        sysfs: Path,
        machine: Machine,
        on_change: Callable[[Machine], None],
        on_error: Callable[[MachineError], None],
        on_uevent: Callable[[], None] = lambda: None,
    ) -> None:
        self.machine = machine
        self._sysfs = sysfs
        self._on_change = on_change
        self._on_error = on_error
        self._on_uevent = on_uevent
        self._timer: asyncio.TimerHandle | None = None
        self._settled: asyncio.TimerHandle | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> MachineWatch:
        is_current = False
        with contextlib.ExitStack() as stack:
            stack.enter_context(watch(self._sysfs, self._changed))
            # It may have changed before the watch was set up.
            with contextlib.suppress(MachineError):
                is_current = machine.is_current(self._sysfs, self.machine)
            if not is_current:
                self._read()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        for timer in (self._timer, self._settled):
            if timer:
                timer.cancel()

    def _changed(self) -> None:
        self._on_uevent()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_BATCH_SECONDS, self._read_batch)

    def _read_batch(self) -> None:
        self._timer = None
        if self._settled:
            self._settled.cancel()
        self._settled = asyncio.get_running_loop().call_later(_SETTLED_SECONDS, self._compare)
        self._read()

    def _compare(self) -> None:
        with contextlib.suppress(MachineError):  # the first read has reported it
            if not machine.is_current(self._sysfs, self.machine):
                self._read()

    def _read(self) -> None:
        try:
            self.machine = machine.read(self._sysfs, self.machine)
        except MachineError as error:
            self._on_error(error)
        else:
            self._on_change(self.machine)


@contextlib.contextmanager
def watch(sysfs: Path, on_change: Callable[[], None]) -> Iterator[None]:
    """Calls `on_change` from the event loop whenever a CPU may have changed.

    A directory that is not a real sysfs, such as a simulated machine, has no kernel that sends
    uevents: its `online` file is watched instead.
    """
    # Only a real sysfs has the kernel's counter of uevents.
    real = (sysfs / "kernel" / "uevent_seqnum").exists()
    with _uevents(on_change) if real else _online_file(sysfs, on_change):
        yield


@contextlib.contextmanager
def _uevents(on_change: Callable[[], None]) -> Iterator[None]:
    # From the kernel, not from udevd: udevd forwards events only after it has processed its rules.
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
    monitor.filter_by("cpu")
    monitor.start()

    def read() -> None:
        try:
            # None is an event of another subsystem. read() is called again if more are queued.
            changed = monitor.poll(timeout=0) is not None
        except OSError:
            changed = True  # ENOBUFS: events were lost, possibly one of a CPU
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
