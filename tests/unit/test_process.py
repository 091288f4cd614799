"""service/process: memory, signals and the exit of a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from isolcpus_dp.service import process


@pytest.fixture(autouse=True)
async def signal_handlers() -> AsyncIterator[None]:
    """Removes the signal handlers after the test, so that Ctrl-C reaches pytest."""
    yield
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new Python process, after importing `sys` and `process`."""
    imports = "import sys; from isolcpus_dp.service import process\n"
    return subprocess.run(
        [sys.executable, "-c", imports + code], capture_output=True, text=True, timeout=60
    )


def test_asyncio_loads_without_the_blocked_modules() -> None:
    ended = run_python(
        "process.UNNEEDED.block()\n"
        "import asyncio, shutil\n"
        "print([name for name in ('ssl', '_ssl', 'bz2', 'lzma') if sys.modules.get(name)])"
    )
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_command_line_does_not_load_blocked_modules_or_asyncio() -> None:
    ended = run_python(
        "from isolcpus_dp import arguments, cli\n"
        "print([name for name in ('ssl', 'bz2', 'lzma', 'asyncio') if name in sys.modules])"
    )
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_unblocked_modules_can_be_imported() -> None:
    ended = run_python(
        "process.UNNEEDED.block()\n"
        "import asyncio\n"
        "process.UNNEEDED.unblock()\n"
        "import ssl, bz2, lzma\n"
        "print(ssl.SSLContext.__name__)"
    )
    assert (ended.stdout, ended.stderr) == ("SSLContext\n", "")


def test_import_of_a_blocked_module_fails() -> None:
    ended = run_python("process.ModuleBlock('ssl').block()\nimport ssl")
    assert "import of ssl halted" in ended.stderr


def test_loaded_modules_are_neither_blocked_nor_unloaded() -> None:
    block = process.ModuleBlock("json")
    import json

    block.block()
    assert sys.modules["json"] is json
    block.unblock()
    assert sys.modules["json"] is json


def test_unloaded_module_can_be_imported_again() -> None:
    ended = run_python(
        "import isolcpus_dp\n"
        "from isolcpus_dp import arguments\n"
        "process.unload('isolcpus_dp.arguments', 'argparse', 'never_loaded')\n"
        "print('argparse' in sys.modules, hasattr(isolcpus_dp, 'arguments'))\n"
        "from isolcpus_dp import arguments\n"
        "print(len(arguments.SUBCOMMANDS) > 0)"
    )
    assert (ended.stdout, ended.stderr) == ("False False\nTrue\n", "")


def test_huge_pages_are_disabled_for_the_process() -> None:
    # PR_GET_THP_DISABLE of <linux/prctl.h>
    query = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))\n"
    ended = run_python(f"{query}process.disable_huge_pages()\n{query}")
    assert ended.stdout == "0\n1\n"


def test_exit_writes_the_log_and_skips_exit_handlers() -> None:
    ended = run_python(
        "import atexit, logging, logging.handlers\n"
        "atexit.register(print, 'at exit')\n"
        "target = logging.StreamHandler(sys.stderr)\n"
        "handler = logging.handlers.MemoryHandler(100, target=target)\n"
        "logging.getLogger().addHandler(handler)\n"
        "logging.warning('last words')\n"
        "process.exit_now(3)"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "last words\n")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.ENOMEM])
def test_errors_of_reached_limits_name_the_limits(number: int) -> None:
    assert process.explain(OSError(number, "Nothing left")) == (
        f"[Errno {number}] Nothing left: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches"
    )


def test_other_errors_keep_their_text() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/run/x")
    assert process.explain(error) == "[Errno 13] Permission denied: '/run/x'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_cancels_the_coroutine(number: signal.Signals) -> None:
    steps = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("cleaned up")

    assert await asyncio.wait_for(process.until_signal(work()), 20)
    assert steps == ["cleaned up"]


async def test_wait_ends_with_the_coroutine() -> None:
    steps = []

    async def work() -> None:
        steps.append("done")

    assert not await asyncio.wait_for(process.until_signal(work()), 20)
    assert steps == ["done"]


async def test_error_of_the_coroutine_is_raised() -> None:
    async def work() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await asyncio.wait_for(process.until_signal(work()), 20)


async def test_coroutine_that_ignores_cancellation_is_cancelled_again() -> None:
    cancellations: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while len(cancellations) < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancellations.append("swallowed")

    await asyncio.wait_for(process.until_signal(work()), 20)
    assert cancellations == ["swallowed", "swallowed"]


async def test_exceptions_of_tasks_that_end_at_once_are_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("the work has failed")

    with pytest.raises(ValueError, match="the work has failed"):
        await process.until_one_ends([fail(), fail(), asyncio.sleep(60)])
    gc.collect()  # asyncio logs an exception when its task is collected
    assert caplog.records == []


async def wait_for_one(work: Coroutine[Any, Any, None]) -> None:
    await process.until_one_ends([work])


@pytest.mark.parametrize("wait", [process.until_signal, wait_for_one])
async def test_cancelled_wait_leaves_no_task_and_logs_no_failure(
    caplog: pytest.LogCaptureFixture, wait: Callable[..., Coroutine[Any, Any, object]]
) -> None:
    started = asyncio.Event()
    before = asyncio.all_tasks()

    async def fail_at_the_end() -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("the work has failed")

    task = asyncio.create_task(wait(fail_at_the_end()))
    await started.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    del task
    await asyncio.sleep(0)  # the event loop, too, forgets the tasks
    assert asyncio.all_tasks() == before
    gc.collect()  # asyncio logs an exception when its task is collected
    assert caplog.records == []


async def test_failure_before_a_cancellation_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A kubelet and the daemon are stopped at once: `systemctl stop kubelet isolcpus-dp`."""
    ending = asyncio.Event()
    ended = []

    async def fail() -> None:
        raise ValueError("the work has failed")

    async def end_slowly() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ending.set()
            await asyncio.shield(asyncio.sleep(0.01))
            ended.append("slowly")

    task = asyncio.create_task(process.until_one_ends([fail(), end_slowly()]))
    await ending.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert ended == ["slowly"]
    del task
    await asyncio.sleep(0)  # the event loop, too, forgets the tasks
    gc.collect()  # asyncio logs an exception when its task is collected
    assert caplog.records == []
