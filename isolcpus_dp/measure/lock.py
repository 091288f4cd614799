"""The lock of a measurement: a second one at the same time would measure the first one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# The file stays: to remove it would let two processes lock two files of this name.
FILE = Path("/run/isolcpus-dp-measure.lock")


class LockError(Exception):
    """The lock cannot be taken; the message is one sentence."""


@contextlib.contextmanager
def hold(file: Path) -> Iterator[None]:
    """Holds the lock during the block. The kernel releases it if the process is killed.

    Raises LockError.
    """
    try:
        # Nobody but root needs it, so that no user can hold it.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LockError(f"could not open {file}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockError(
                f"another measurement is running and holds {file}: wait until it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)
