"""CPU hotplug: keeps a Machine up to date when CPUs go offline or come online.

The source is the kernel's uevents. A simulated machine has no kernel; its files are
watched instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
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
# After a failure, the machine is compared again after a delay, which doubles with each further one.
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0


class MachineWatch:
    """Reads the machine whenever a CPU may have changed. A context manager.

    `on_change` is called with each Machine that is read, also if it is the same. If the machine
    cannot be read, or `on_change` raises MachineError for something that it reads, `machine` stays
    unchanged, `on_error` is called, once for each reason, and the machine is read again later.
    `on_uevent` is called for each event.
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
        self._failure = ""
        self._delay = _FIRST_DELAY
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> MachineWatch:
        with contextlib.ExitStack() as stack:
            stack.enter_context(watch(self._sysfs, self._changed))
            self._compare()  # it may have changed before the watch was set up
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
        self._compare_after(_SETTLED_SECONDS)
        self._read()

    def _compare_after(self, seconds: float) -> None:
        if self._settled:
            self._settled.cancel()
        self._settled = asyncio.get_running_loop().call_later(seconds, self._compare)

    def _compare(self) -> None:
        try:
            is_current = machine.is_current(self._sysfs, self.machine)
        except MachineError:
            is_current = False  # reading it reports the reason
        if is_current:
            self._succeeded()
        else:
            self._read()

    def _read(self) -> None:
        try:
            present = machine.read(self._sysfs, self.machine)
            self._on_change(present)
        except MachineError as error:
            self._failed(error)
        else:
            self.machine = present
            self._succeeded()

    def _succeeded(self) -> None:
        self._failure, self._delay = "", _FIRST_DELAY

    def _failed(self, error: MachineError) -> None:
        # Without an event the kernel does not tell that the files can be read again.
        self._compare_after(self._delay)
        self._delay = min(2 * self._delay, _LONGEST_DELAY)
        if str(error) != self._failure:
            self._failure = str(error)
            self._on_error(error)


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
            # pyudev raises it without reading, and the kernel reports it until it is read.
            with contextlib.suppress(OSError):
                os.read(monitor.fileno(), 1)
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
