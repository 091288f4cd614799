"""The busy loop: a process of oslat (rt-tests) for each CPU, so that each can be ended alone.

The life of such a process: for one second a thread on the CPU finds out how fast the CPU is. It
ends, oslat prints "Test starts...", and a second thread measures. oslat takes no notice of SIGTERM
in that second. After it, oslat writes its result when it gets SIGTERM, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import pty
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.measure.result import LAST_BUCKET_US, Histogram

_STARTS = b"Test starts"
_LOOK_SECONDS = 0.01
_MOST_START_SECONDS = 30.0
_MOST_STOP_SECONDS = 30.0
# It is ended by a signal. This only ends one that nobody ends.
_MORE_SECONDS = 60
_MOST_MESSAGE = 200

_FLAGS = 6
_PF_EXITING = 0x4  # include/linux/sched.h


class OslatError(Exception):
    """A loop did not measure; the message is one sentence."""


class Programs:
    """The programs that run a loop. Raises OslatError if one is missing."""

    def __init__(self) -> None:
        self.oslat = _program("oslat", "install rt-tests (Debian) or realtime-tests (Fedora, EL)")
        # Has the kernel end the loop with this command, whatever ends the command.
        self.setpriv = _program("setpriv", "install util-linux")


def _program(name: str, advice: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise OslatError(f"{name} is missing: {advice}")
    return found


def command(
    programs: Programs, cpu: int, main_cpu: int, seconds: float, result: Path
) -> tuple[str, ...]:
    """The command that runs a loop on a CPU; its main thread is on another one."""
    return (
        *(programs.setpriv, "--pdeathsig", "KILL", "--", programs.oslat),
        *("--cpu-list", str(cpu), "--cpu-main-thread", str(main_cpu)),
        *("--duration", str(math.ceil(seconds) + _MORE_SECONDS)),
        *("--bucket-size", str(LAST_BUCKET_US), "--zero-omit", "--json", str(result)),
    )


class Loop:
    """The loop on one CPU."""

    def __init__(
        self,
        cpu: int,
        process: asyncio.subprocess.Process,
        output: asyncio.StreamReader,
        result: Path,
    ) -> None:
        """Use `start`."""
        self._cpu = cpu
        self._process = process
        self._output = output
        self._result = result

    @classmethod
    async def start(
        cls,
        programs: Programs,
        cpu: int,
        main_cpu: int,
        seconds: float,
        directory: Path,
    ) -> Loop:
        """Starts a loop that can measure for `seconds`. Raises OslatError."""
        result = directory / f"{cpu}.json"
        words = command(programs, cpu, main_cpu, seconds, result)
        output, terminal = await _terminal()
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=terminal,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in the terminal is for the command
            )
        except OSError as error:
            raise OslatError(f"could not run {words[0]}: {error.strerror}") from error
        finally:
            os.close(terminal)
        return cls(cpu, process, output, result)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def measuring(self, proc: Path = Path("/proc")) -> int:
        """Waits until the loop measures, and returns the TID of its thread. Raises OslatError."""
        try:
            return await asyncio.wait_for(self._measuring(proc), _MOST_START_SECONDS)
        except asyncio.TimeoutError:
            raise OslatError(
                f"oslat did not begin to measure within {_MOST_START_SECONDS:g} s"
            ) from None

    async def _measuring(self, proc: Path) -> int:
        with contextlib.suppress(OSError):  # a terminal that its last program has closed
            while line := await self._output.readline():
                if line.startswith(_STARTS):
                    break
        while True:
            present = threads_on(proc, self.pid, self._cpu)
            if present:
                return min(present)
            if self._process.returncode is not None:
                raise OslatError(await self.ended())
            await asyncio.sleep(_LOOK_SECONDS)  # it is about to be created

    async def ended(self) -> str:
        """Waits until the process ends without being asked to, and returns why: one sentence."""
        assert self._process.stderr
        messages = (await self._process.stderr.read()).decode("utf-8", "replace").split("\n")
        status = await self._process.wait()
        said = [line.strip() for line in messages if line.strip()]
        if any("option" in line and "json" in line for line in said):
            return "this oslat has no option --json: install a newer rt-tests, or realtime-tests"
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return f"oslat ended {how}" + (f": {said[-1][:_MOST_MESSAGE]}" if said else "")

    async def stop(self) -> Histogram:
        """Ends the measurement, and returns its result. Raises OslatError."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _MOST_STOP_SECONDS)
        except asyncio.TimeoutError:
            self.kill()
            raise OslatError(f"oslat did not end within {_MOST_STOP_SECONDS:g} s") from None
        try:
            return parse(files.text(self._result))
        except files.Unseen as error:
            raise OslatError(f"the result of oslat is missing: {error}") from error

    def kill(self) -> None:
        """Ends the loop at once; there is no result."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def gone(self) -> None:
        """Waits until the process has ended."""
        await self._process.wait()


async def _terminal() -> tuple[asyncio.StreamReader, int]:
    """A terminal: what is written to it, and the descriptor to which a program writes.

    Into a pipe, oslat would print its lines only in the end.
    """
    ours, terminal = pty.openpty()
    output = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(ours, "rb", 0)
    )
    return output, terminal


def threads_on(proc: Path, pid: int, cpu: int) -> set[int]:
    """The threads of a process that may run on this CPU only, without those that are ending.

    oslat may have joined a thread that the kernel still shows.
    """
    tasks = proc / str(pid) / "task"
    return {
        int(name)
        for name in files.names(tasks)
        if _allowed(tasks / name) == cpulist.render({cpu}) and not _is_ending(tasks / name)
    }


def _allowed(task: Path) -> str:
    for line in files.lines(task / "status"):
        key, _, value = line.partition(":")
        if key == "Cpus_allowed_list":
            return value.strip()
    return ""


def _is_ending(task: Path) -> bool:
    # After the name, which may contain spaces and brackets: state, parent, ..., flags (proc(5)).
    fields = files.text(task / "stat").rpartition(")")[2].split()
    return len(fields) <= _FLAGS or bool(int(fields[_FLAGS]) & _PF_EXITING)


def parse(text: str) -> Histogram:
    """The result that oslat has written for its one thread. Raises OslatError.

    The names of other keys differ between versions; these have stayed the same.
    """
    try:
        [thread] = json.loads(text)["thread"].values()
        return _histogram(thread)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OslatError(
            "the result of oslat cannot be read: it must be JSON with one thread and its max,"
            " duration and histogram"
        ) from error


def _histogram(thread: Mapping[str, Any]) -> Histogram:
    return Histogram(
        counts={int(length): int(count) for length, count in thread["histogram"].items() if count},
        longest_us=float(thread["max"]),
        seconds=float(thread["duration"]),
    )
