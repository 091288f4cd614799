"""A daemon's process: what it keeps in memory, what it waits for, and how it ends.

It knows nothing of devices, containers or the log's events.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import asyncio

# <linux/prctl.h>
_PR_SET_THP_DISABLE = 41

_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM)


class ModuleBlock:
    """Modules that other modules import if they can, and do without if they cannot.

    While they are blocked, importing one raises ImportError.
    """

    def __init__(self, *names: str) -> None:
        self._names = names

    def block(self) -> None:
        """Blocks those that are not loaded yet."""
        for name in self._names:
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]

    def unblock(self) -> None:
        """Lets them be imported again."""
        for name in self._names:
            if sys.modules.get(name, ...) is None:
                del sys.modules[name]


# asyncio and shutil import them. A daemon on unix sockets uses none, and they take 1 MiB.
UNNEEDED = ModuleBlock("ssl", "bz2", "lzma", "compression.zstd")


def disable_huge_pages() -> None:
    """Has the kernel back this process with small pages only.

    With transparent huge pages, the stack of one thread may take 2 MiB.
    """
    ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)


def unload(*names: str) -> None:
    """Drops modules that are no longer used; Python uses their memory for what is loaded next."""
    for name in names:
        sys.modules.pop(name, None)
        package, _, module = name.rpartition(".")
        if package in sys.modules:
            vars(sys.modules[package]).pop(module, None)
    gc.collect()


def run(live: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs `live` in an event loop until it ends.

    It is called in the loop: before Python 3.10, an asyncio.Event is bound to the loop in which it
    is created.
    """
    # Not at the top: asyncio must be imported after UNNEEDED is blocked.
    import asyncio

    async def main() -> None:
        await live()

    asyncio.run(main())


async def until_signal(work: Coroutine[Any, Any, None]) -> bool:
    """Runs `work` until it ends, or cancels it on SIGTERM or SIGINT. Raises what `work` raises.

    Returns whether a signal ended it. If the caller is cancelled, `work` is too.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    task, stop = asyncio.create_task(work), asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        was_asked = not task.done()
        await cancel([task])
    if not task.cancelled():
        task.result()
    return was_asked


async def until_one_ends(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines concurrently until one ends; raises what it raised.

    If several end at once, it raises the exception of one of them.
    """
    import asyncio

    tasks = [asyncio.create_task(coroutine) for coroutine in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()


async def cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks and waits until they have ended; ended ones are left alone.

    It does not raise what they raise: the caller may ask each task. If the caller is cancelled
    meanwhile, raises CancelledError when they have ended.
    """
    import asyncio

    cancelled = None
    # Before Python 3.12, wait_for() may swallow a cancellation (bpo-37658).
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        waiting = asyncio.ensure_future(asyncio.wait(pending, timeout=0.1))
        while not waiting.done():
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError as error:
                cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()  # asyncio logs an exception that nobody has asked for
    if cancelled:
        raise cancelled


def explain(error: OSError) -> str:
    """A sentence about an error that ends a daemon."""
    if error.errno not in _USED_UP:
        return str(error)
    # These run out first on a host with many containers.
    return (
        f"{error}: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches"
    )


def exit_now(status: int) -> NoReturn:
    """Ends the process without Python's own cleanup, which takes 30 ms.

    systemd starts the next daemon when this one has ended, and until then the node has none.
    """
    try:
        logging.shutdown()
    finally:
        os._exit(status)
