"""The trace instance of a measurement: histograms that only it uses.

The kernel counts while the instance exists; nothing runs here, and the files are read twice. See
Documentation/trace/ftrace.rst, "Instances".
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.record import histogram

if TYPE_CHECKING:
    from isolcpus_dp.measure.record.histogram import Table, Trigger

NAME = "isolcpus-dp-measure"

# What the kernel accepts in one write is a page. A longer condition is left out: it only saves
# room in the tables.
_LONGEST_CONDITION = 3000

# A directory of tracefs is made with all its files, and removed with them. Tests replace these.
make_directory = os.mkdir
remove_directory = os.rmdir


class Instance:
    """The directory of the instance, its triggers and its tracer."""

    def __init__(self, tracefs: Path) -> None:
        self._tracefs = tracefs
        self.directory = tracefs / "instances" / NAME

    def make(self) -> None:
        """Creates the instance. Raises Unseen."""
        if not self._tracefs.is_dir():
            raise Unseen(f"{self._tracefs} is missing: the kernel has no event tracing")
        if not files.names(self._tracefs):
            raise Unseen(
                f"tracefs is not mounted at {self._tracefs}: mount -t tracefs nodev {self._tracefs}"
            )
        try:
            make_directory(self.directory)
        except FileExistsError as error:
            raise Unseen(
                f"a program has a file open in {self.directory}, which an earlier measurement"
                " left: end that program"
            ) from error
        except OSError as error:
            raise Unseen(
                f"cannot create {self.directory}: {error.strerror}{_lockdown(error)}"
            ) from error
        # No event is written into the buffers, which have more than 1 MiB per CPU otherwise.
        with contextlib.suppress(OSError):
            write(self.directory / "buffer_size_kb", "4")

    def remove(self, triggers: Iterable[Trigger]) -> None:
        """Removes the instance, also one of an earlier measurement; does nothing without one."""
        if not self.directory.is_dir():
            return
        self.stop_tracer()
        # The kernel keeps an instance in which a program has a file open, but need not count.
        for trigger in triggers:
            with contextlib.suppress(OSError):
                write(self._event(trigger) / "trigger", "")
        with contextlib.suppress(OSError):
            remove_directory(self.directory)

    def add(self, trigger: Trigger, cpus: frozenset[int], online: frozenset[int]) -> None:
        """Begins to count an event on some CPUs. Raises Unseen."""
        event = self._event(trigger)
        if not (event / "trigger").exists():
            raise Unseen(f"the kernel has no event {trigger.event.replace('/', ':')}")
        if not (event / "hist").exists():
            raise Unseen("the kernel has no histogram triggers (CONFIG_HIST_TRIGGERS)")
        condition = _condition(cpus, online)
        first, before = (trigger.command(field, condition) for field in histogram.CPU_FIELDS)
        try:
            append(event / "trigger", first)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise _rejected(trigger, error) from error
            try:
                append(event / "trigger", before)
            except OSError as second:
                raise _rejected(trigger, second) from second

    def read(self, trigger: Trigger) -> Table:
        """What was counted until now. Raises Unseen."""
        return histogram.parse(files.text(self._event(trigger) / "hist"), trigger)

    def set_tracer(self, name: str) -> None:
        """Starts a tracer. Raises Unseen."""
        try:
            write(self.directory / "current_tracer", name)
        except OSError as error:
            raise Unseen(f"cannot start the {name} tracer: {error.strerror}") from error

    def stop_tracer(self) -> None:
        """Stops the tracer, if one is set."""
        with contextlib.suppress(OSError):
            write(self.directory / "current_tracer", "nop")

    def _event(self, trigger: Trigger) -> Path:
        return self.directory / "events" / trigger.event


def write(path: Path, text: str) -> None:
    """Replaces the content of a file that exists. Raises OSError."""
    _put(path, text, os.O_TRUNC)


def append(path: Path, text: str) -> None:
    """Adds a line to a file that exists. Raises OSError."""
    _put(path, f"{text}\n", os.O_APPEND)


def _put(path: Path, text: str, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flag)
    try:
        # In one write: the kernel takes each for a command of its own.
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _condition(cpus: frozenset[int], online: frozenset[int]) -> str:
    """Restricts a trigger to CPUs, so that other CPUs do not fill its table."""
    if not cpus or cpus >= online:
        return ""
    ranges = (part.partition("-") for part in cpulist.render(cpus).split(","))
    condition = " || ".join(
        f"(CPU >= {low} && CPU <= {high})" if high else f"(CPU == {low})" for low, _, high in ranges
    )
    return condition if len(condition) <= _LONGEST_CONDITION else ""


def _rejected(trigger: Trigger, error: OSError) -> Unseen:
    name = trigger.event.replace("/", ":")
    return Unseen(f"the kernel rejects a histogram of {name}: {error.strerror}{_lockdown(error)}")


def _lockdown(error: OSError) -> str:
    """A hint: root may do this, except where the kernel is locked down."""
    if error.errno not in (errno.EPERM, errno.EACCES):
        return ""
    return ": run the command as root, and see /sys/kernel/security/lockdown"
