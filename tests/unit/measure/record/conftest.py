"""A kernel in directories: /proc, /sys, /dev and a tracefs whose histograms a test writes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from isolcpus_dp.measure.record import tracefs
from isolcpus_dp.measure.record.roots import Roots

NOISES = ("thread_noise", "irq_noise", "softirq_noise", "nmi_noise")
OPTIONS = "DEFAULTS OSNOISE_WORKLOAD NO_PANIC_ON_STOP"


class MadeUpKernel:
    """By default a kernel with tracefs and histograms, but without osnoise, as Debian's."""

    def __init__(self, directory: Path) -> None:
        self.roots = Roots(
            sysfs=directory / "sys",
            proc=directory / "proc",
            dev=directory / "dev",
            tracefs=directory / "tracing",
            run=directory / "run",
        )
        self.roots.run.mkdir()
        self.has_histograms = True
        self.is_busy = False  # a program has a file open in the instance
        self.events = ["sched/sched_switch", "workqueue/workqueue_execute_start"]
        self.trace("available_tracers", "function nop\n")
        self.trace("current_tracer", "nop\n")
        self.trace("instances/README", "")
        self.proc("cpuinfo", "vendor_id\t: AuthenticAMD\n")

    @property
    def instance(self) -> Path:
        return self.roots.tracefs / "instances" / "isolcpus-dp-measure"

    def proc(self, name: str, text: str) -> None:
        _write(self.roots.proc / name, text)

    def sys(self, name: str, text: str) -> None:
        _write(self.roots.sysfs / name, text)

    def trace(self, name: str, text: str) -> None:
        _write(self.roots.tracefs / name, text)

    def histogram(self, event: str, *entries: str, dropped: int = 0) -> None:
        """What the kernel has counted for an event of the instance."""
        lines = ["# event histogram", "#", "", *entries, "", "Totals:", f"    Dropped: {dropped}"]
        _write(self.instance / "events" / event / "hist", "\n".join(lines) + "\n")

    def trigger(self, event: str) -> str:
        """What was written into the file `trigger` of an event."""
        return (self.instance / "events" / event / "trigger").read_text()

    def add_osnoise(self, options: str = OPTIONS) -> None:
        self.events += [f"osnoise/{name}" for name in NOISES]
        self.trace("available_tracers", "timerlat osnoise function nop\n")
        self.trace("osnoise/cpus", "0-7\n")
        if options:
            self.trace("osnoise/options", f"{options}\n")

    def make(self, path: Path) -> None:
        """As mkdir in `instances`."""
        if path.exists():
            raise FileExistsError(errno.EEXIST, "File exists")
        path.mkdir()
        for name in ("current_tracer", "buffer_size_kb"):
            (path / name).write_text("")
        for event in self.events:
            _write(path / "events" / event / "trigger", "")
            if self.has_histograms:
                self.histogram(event)

    def remove(self, path: Path) -> None:
        """As rmdir in `instances`."""
        if self.is_busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        shutil.rmtree(path)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUpKernel:
    made = MadeUpKernel(tmp_path)
    monkeypatch.setattr(tracefs, "make_directory", made.make)
    monkeypatch.setattr(tracefs, "remove_directory", made.remove)
    return made


@pytest.fixture
def clock() -> Callable[[], float]:
    """Each reading of it is two seconds later."""
    moments: Iterator[float] = iter(range(100, 200, 2))
    return lambda: next(moments)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
