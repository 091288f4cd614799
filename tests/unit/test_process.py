"""service/process: what a daemon keeps out of its memory, what stops it, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from isolcpus_dp.service import process


@pytest.fixture(autouse=True)
async def signal_handlers() -> AsyncIterator[None]:
    """Leaves Ctrl-C to pytest after the test."""
    yield
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh Python, where `sys` and `process` are imported."""
    imports = "import sys; from isolcpus_dp.service import process\n"
    return subprocess.run(
        [sys.executable, "-c", imports + code], capture_output=True, text=True, timeout=60
    )


def test_blocked_modules_stay_out_of_a_process_that_loads_asyncio() -> None:
    ended = run_python(
        "process.UNNEEDED.block()\n"
        "import asyncio, shutil\n"
        "print([name for name in ('ssl', '_ssl', 'bz2', 'lzma') if sys.modules.get(name)])"
    )
    assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_command_line_leaves_asyncio_to_be_loaded_after_the_block() -> None:
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


def test_loaded_modules_are_neither_blocked_nor_dropped() -> None:
    block = process.ModuleBlock("json")
    import json

    block.block()
    assert sys.modules["json"] is json
    block.unblock()
    assert sys.modules["json"] is json


def test_unloaded_module_is_gone_and_can_be_imported_again() -> None:
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
    asked = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))\n"
    ended = run_python(f"{asked}process.disable_huge_pages()\n{asked}")
    assert ended.stdout == "0\n1\n"


def test_exit_writes_the_log_and_skips_what_python_does_at_exit() -> None:
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
def test_used_up_limits_are_named(number: int) -> None:
    assert process.explain(OSError(number, "Nothing left")) == (
        f"[Errno {number}] Nothing left: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches"
    )


def test_other_errors_are_explained_by_themselves() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/run/x")
    assert process.explain(error) == "[Errno 13] Permission denied: '/run/x'"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_cancels_the_work(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    steps = []

    async def work() -> None:
        os.kill(os.getpid(), number)
        try:
            await asyncio.sleep(60)
        finally:
            steps.append("cleaned up")

    with caplog.at_level(logging.INFO):
        await asyncio.wait_for(process.until_signal(work()), 20)
    assert steps == ["cleaned up"]
    assert caplog.messages == ["asked to stop"]


async def test_work_that_ends_by_itself_ends_the_wait() -> None:
    steps = []

    async def work() -> None:
        steps.append("done")

    await asyncio.wait_for(process.until_signal(work()), 20)
    assert steps == ["done"]


async def test_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise LookupError("lost")

    with pytest.raises(LookupError, match="lost"):
        await asyncio.wait_for(process.until_signal(work()), 20)


async def test_work_that_swallows_a_cancellation_is_cancelled_again() -> None:
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
