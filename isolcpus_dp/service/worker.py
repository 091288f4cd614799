"""A worker process, which a parent forks once everything that the worker needs is loaded.

The worker ends with its parent. The parent learns from a pipe what the worker has to tell, also if
the worker is killed. The parent must not have threads, an event loop or gRPC objects.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from isolcpus_dp.service import process

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1

# Sends a line to the parent.
Tell = Callable[[str], None]

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class End:
    """How a worker ended, and the lines that it told its parent."""

    status: int  # its exit status; negative: the number of the signal that killed it
    told: tuple[str, ...]


class Worker:
    """A running worker, as its parent sees it."""

    def __init__(self, pid: int, told: int) -> None:
        self.pid = pid
        self._told = told

    def poll(self) -> End | None:
        """How it ended; None while it runs. Not to be called again after it has ended."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        told = b""
        while data := _read(self._told):
            told += data
        os.close(self._told)
        lines = told.decode(errors="replace").splitlines()
        return End(os.waitstatus_to_exitcode(status), tuple(lines))

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)


def fork(work: Callable[[Tell], None]) -> Worker:
    """Starts a worker that runs `work` and exits; `work` gets a function that tells a line.

    The worker exits with 0, or with 1 if `work` raises an exception, whose traceback it tells. It
    starts with no signal blocked. Raises OSError if processes or descriptors are used up.
    """
    parent = os.getpid()
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if pid == 0:
        os.close(read)
        _run(work, parent, write)
    os.close(write)
    return Worker(pid, read)


def _run(work: Callable[[Tell], None], parent: int, write: int) -> NoReturn:
    status = 1
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            process.exit_now(1)  # it ended before prctl()
        # The parent's hang-up means reload; a terminal sends it to the worker as well.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        work(lambda line: _tell(write, line))
        status = 0
    except BaseException:
        _tell(write, traceback.format_exc().rstrip())
    finally:
        # Whatever happens: the worker must not return into the parent's code.
        process.exit_now(status)


def _tell(write: int, line: str) -> None:
    # The parent reads when the worker has ended. If the pipe is full, the line is dropped.
    with contextlib.suppress(BlockingIOError):
        os.write(write, f"{line}\n".encode())


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:  # another process has inherited the other end
        return b""
