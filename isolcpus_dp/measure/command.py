"""`isolcpus-dp measure`: from the options to what is printed.

All that can fail without a measurement is tried before it, so that nothing is lost after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.measure import confinement, lock, oslat, owners, request, selection, session
from isolcpus_dp.measure.record.recorder import Recorder
from isolcpus_dp.measure.record.roots import Roots
from isolcpus_dp.measure.request import RequestError
from isolcpus_dp.measure.result import Result
from isolcpus_dp.measure.show import document
from isolcpus_dp.service import process

if TYPE_CHECKING:
    from types import SimpleNamespace

    from isolcpus_dp.measure.owners import Ownership
    from isolcpus_dp.measure.request import Request
    from isolcpus_dp.measure.selection import Selection
    from isolcpus_dp.measure.session import Measured, Progress
    from isolcpus_dp.measure.show.document import Document

__all__ = ["CommandError", "Output", "RequestError", "run"]

_PROC = Path("/proc")


class CommandError(Exception):
    """Nothing was measured; the message is one sentence."""


@dataclass(frozen=True)
class Output:
    """What a measurement prints."""

    text: str  # on standard output
    # On standard error: why the exit status is 1; none if it is 0.
    failures: tuple[str, ...]


def run(options: SimpleNamespace) -> Output:
    """Measures. Raises RequestError, CommandError, MachineError and ConfigError."""
    wanted = request.make(options)
    if os.geteuid() != 0:
        raise CommandError(
            "measure must run as root: it reads the kernel's traces and the owners of CPUs"
        )
    try:
        before = _prepared(wanted)
        present = owners.look(wanted.host)
        chosen = selection.select(
            present.machine, present.owners, wanted.cpus, watch_owned=wanted.watch_owned
        )
        main_cpu = selection.main_cpu(present.machine, chosen)
        confinement.leave({*chosen.measured, main_cpu}, wanted.host.sysfs)
        with lock.hold(lock.FILE):
            return _output(wanted, before, *_measured(wanted, present, chosen, main_cpu))
    except (
        confinement.ConfinedError,
        document.DocumentError,
        lock.LockError,
        oslat.OslatError,
        owners.OwnersUnknown,
        request.Refused,
    ) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(process.explain(error)) from error


def _prepared(wanted: Request) -> Document | None:
    """The earlier measurement. Raises CommandError and DocumentError for what will fail later."""
    if not wanted.json:
        _require_rich()
    if wanted.svg:
        directory = wanted.svg.parent
        if not directory.is_dir():
            raise CommandError(f"--svg {wanted.svg}: there is no directory {directory}")
        if wanted.svg.is_dir() or not os.access(directory, os.W_OK):
            raise CommandError(f"--svg {wanted.svg}: the file cannot be written")
    return document.read(wanted.compare) if wanted.compare else None


def _require_rich() -> None:
    try:
        import rich  # noqa: F401
    except ModuleNotFoundError as error:
        raise CommandError(
            "rich, which prints the table, is missing: install python3-rich, or use --json"
        ) from error


def _measured(
    wanted: Request, present: Ownership, chosen: Selection, main_cpu: int
) -> tuple[Result, signal.Signals | None]:
    """The result, and the signal that has ended the measurement early."""
    programs = oslat.Programs() if chosen.measured else None
    confinement.stay_on(chosen.own)
    began = dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds")
    measured, received = asyncio.run(_measure(wanted, present, chosen, main_cpu, programs))
    host = os.uname()
    result = Result(
        host=host.nodename,
        kernel=host.release,
        began=began,
        seconds=round(measured.seconds, 1) if received else wanted.seconds,
        limit_us=wanted.limit_us,
        histograms=measured.histograms,
        recording=measured.recording,
        isolated=present.machine.isolated,
        housekeeping=present.machine.online - present.machine.isolated,
        watched=measured.watched,
        dropped=measured.dropped,
        owners=measured.owners,
        arguments=_kernel_arguments(),
    )
    return result, received


def _kernel_arguments() -> str:
    """The kernel's command line; empty if it is not shown to this process."""
    try:
        return files.text(_PROC / "cmdline")
    except files.Unseen:
        return ""


async def _measure(
    wanted: Request,
    present: Ownership,
    chosen: Selection,
    main_cpu: int,
    programs: oslat.Programs | None,
) -> tuple[Measured, signal.Signals | None]:
    sysfs = wanted.host.sysfs
    roots = Roots(sysfs=sysfs, tracefs=sysfs / "kernel/tracing")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isolcpus-dp-")))
        recorder = stack.enter_context(
            Recorder(
                roots,
                present.machine.online,
                candidates=chosen.measured | chosen.watched,
                own_cpu=main_cpu,
            )
        )
        progress = stack.enter_context(_progress_line())

        async def start(cpu: int) -> oslat.Loop:
            assert programs
            return await oslat.Loop.start(programs, cpu, main_cpu, wanted.seconds, directory)

        one = session.Session(present.machine, chosen, recorder, start, progress=progress)
        received: list[signal.Signals] = []
        with _signals(received, one.stop):
            async with owners.Watch(wanted.host, present, one.owned, one.online, one.unwatched):
                measured = await one.run(wanted.seconds)
        return measured, received[0] if received else None


@contextlib.contextmanager
def _signals(received: list[signal.Signals], stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` for signals that end the measurement."""
    loop = asyncio.get_running_loop()

    def note(number: signal.Signals) -> None:
        received.append(number)
        stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, functools.partial(note, number))
    # Whoever started the command may have blocked them, and the loops would inherit that.
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number in numbers:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _progress_line() -> Iterator[Callable[[Progress], None] | None]:
    """A function that writes a line over the last one; None if standard error is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    start_of_line, rest_of_line = "\r", "\x1b[K"
    try:
        yield lambda progress: print(
            start_of_line,
            progress_text(progress),
            rest_of_line,
            sep="",
            end="",
            file=sys.stderr,
            flush=True,
        )
    finally:
        print(start_of_line, rest_of_line, sep="", end="", file=sys.stderr, flush=True)


def progress_text(progress: Progress) -> str:
    """The line that shows how far a measurement is."""
    doing = (
        f"measuring CPU {cpulist.render(progress.cpus)}" if progress.cpus else "watching owned CPUs"
    )
    line = f"{doing}: {progress.elapsed:.0f} of {progress.seconds:g} s"
    dropped = cpulist.render(progress.dropped)
    return f"{line}; dropped: CPU {dropped}" if dropped else line


def _output(
    wanted: Request, before: Document | None, result: Result, received: signal.Signals | None
) -> Output:
    """Raises CommandError if the measurement was ended before there was any result."""
    if received and (received is not signal.SIGINT or not result.recording.activities):
        raise CommandError(f"{received.name} ended the measurement; there is no result")
    failures = list(_failures(result))
    if received:
        failures.insert(0, f"interrupted after {result.seconds:g} of {wanted.seconds:g} s")
    if wanted.svg:
        from isolcpus_dp.measure.show import picture

        try:
            picture.write(result, wanted.svg)
        except picture.PictureError as error:
            failures.append(str(error))
    return Output(_text(wanted, before, result), tuple(failures))


def _failures(result: Result) -> Iterator[str]:
    """Why the exit status is 1 although the host was measured."""
    if not result.histograms and not result.watched:
        yield "no CPU was measured to the end"
    if result.exceeded:
        cpus = cpulist.render(result.exceeded)
        yield f"the limit of {result.limit_us:g} us was exceeded on CPU {cpus}"


def _text(wanted: Request, before: Document | None, result: Result) -> str:
    if wanted.json:
        return document.as_json(result, before)
    # They need rich, which JSON does not.
    from isolcpus_dp.measure.show import compare, table

    text = table.for_stdout(result)
    return f"{text}\n\n{compare.as_text(before, result)}" if before else text
