"""The mount table: reports each change of it. It does not say what was mounted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watch(on_change: Callable[[], None]) -> Iterator[None]:
    """Calls `on_change` from the event loop whenever a file system is mounted or unmounted.

    proc_pid_mountinfo(5): the kernel reports a change as EPOLLPRI. The file is always readable, so
    the event loop, which waits for readable descriptors, waits for an epoll instance instead.
    Raises OSError if no descriptor is left.
    """
    with contextlib.ExitStack() as stack:
        table = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, table)
        changes = stack.enter_context(select.epoll())
        changes.register(table, select.EPOLLPRI)

        def read() -> None:
            changes.poll(0)
            on_change()

        loop = asyncio.get_running_loop()
        loop.add_reader(changes.fileno(), read)
        stack.callback(loop.remove_reader, changes.fileno())
        yield
