"""`isolcpus-dp map` beside a daemon and a kubelet, as an operator runs it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod

from .conftest import RESOURCE, Host

StartKubelet = Callable[..., Awaitable[Kubelet]]

PATIENCE = 20  # seconds


def command(host: Host, *more: str | Path) -> list[str]:
    words = [sys.executable, "-m", "isolcpus_dp", "map", *more]
    words += ["--sysfs", host.machine.root, "--kubelet-dir", host.kubelet_dir]
    return [str(word) for word in words]


async def started(host: Host, *more: str | Path) -> Process:
    environment = {**host.environment, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
    return await asyncio.create_subprocess_exec(
        *command(host, *more), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment
    )


async def run(host: Host, *more: str | Path) -> tuple[int | None, str, str]:
    process = await started(host, *more)
    stdout, stderr = await asyncio.wait_for(process.communicate(), PATIENCE)
    return process.returncode, stdout.decode(), stderr.decode()


@contextlib.asynccontextmanager
async def watching(host: Host) -> AsyncIterator[Process]:
    process = await started(host, "--watch")
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line(process: Process, words: str) -> str:
    """The next line with these words in it."""
    assert process.stdout

    async def read() -> str:
        assert process.stdout
        async for text in process.stdout:
            if words in text.decode():
                return text.decode()
        raise AssertionError(f"it ended before it said: {words}")

    return await asyncio.wait_for(read(), PATIENCE)


async def test_owners_are_drawn_as_the_kubelet_tells(
    host: Host, start_kubelet: StartKubelet
) -> None:
    kubelet = await start_kubelet()
    async with host.daemon().running():
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
        await kubelet.admit(Pod("forwarder", {RESOURCE: 2}))
        status, picture, complaints = await run(host)
    assert (status, complaints) == (0, "")
    assert "│ │ .  0  A  1  .  2  .  3 │ │" in picture
    assert "│ │ . 12  o 13  . 14  . 15 │ │" in picture
    assert "A  default/forwarder/main  1,9 " in picture
    assert "not seen" not in picture


async def test_host_without_a_kubelet_is_drawn_all_the_same(host: Host) -> None:
    status, picture, complaints = await run(host)
    assert (status, complaints) == (0, "")
    assert "o  isolated, free as far as seen  1,5,9,13" in picture
    assert "not seen: CPU owners: /" in picture


async def test_picture_goes_to_a_file(host: Host) -> None:
    file = host.folder / "map.svg"
    assert await run(host, "--svg", file) == (0, "", "")
    assert "NUMA node" in " ".join(ET.parse(file).getroot().itertext()).replace("\xa0", " ")


async def test_file_that_cannot_be_written_is_one_sentence(host: Host) -> None:
    file = host.folder / "nowhere" / "map.svg"
    status, _, complaints = await run(host, "--svg", file)
    assert status == 1
    assert complaints == (
        f"{file} cannot be written: No such file or directory: choose another file\n"
    )


async def test_watch_follows_cpus_and_containers_and_ends_well(
    host: Host, start_kubelet: StartKubelet
) -> None:
    pods = host.kubelet_dir / "pods"
    pods.mkdir()
    kubelet = await start_kubelet()
    async with host.daemon().running():
        await kubelet.until(lambda: kubelet.allocatable(RESOURCE) == 4)
        async with watching(host) as process:
            await line(process, "o  isolated, free  1,5,9,13")
            (pods / "uid").mkdir()
            await kubelet.admit(Pod("forwarder", {RESOURCE: 2}))
            await line(process, "A  default/forwarder/main  1,9 ")
            host.machine.set_offline(13)
            assert "x 13" in await line(process, "x 13  . 14")
            await line(process, "x  offline                 13")
            kubelet.delete("forwarder")
            (pods / "uid").rmdir()
            await line(process, "o  isolated, free  1,5,9 ")
            process.send_signal(signal.SIGINT)
            stdout, stderr = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, stdout.split(), stderr) == (0, [b"x", b"offline", b"13"], b"")


async def test_watch_sleeps_while_nothing_changes(host: Host) -> None:
    async with watching(host) as process:
        await line(process, "pod-resources: No such file or directory")
        await asyncio.sleep(0.5)
        before = _switches(process.pid)
        await asyncio.sleep(2)
        assert _switches(process.pid) - before <= 1


def _switches(pid: int) -> int:
    """How often its main thread has slept and been woken."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("voluntary_ctxt_switches"):
            return int(text.split()[1])
    raise AssertionError(pid)


def test_svg_and_watch_exclude_each_other(host: Host) -> None:
    result = subprocess.run(command(host, "--watch", "--svg", "x"), capture_output=True, text=True)
    assert result.returncode == 2
    assert "not allowed with argument" in result.stderr


@pytest.mark.parametrize("watch", [[], ["--watch"]])
def test_wrong_sysfs_is_one_sentence(host: Host, tmp_path: Path, watch: list[str]) -> None:
    # Of two the last one counts.
    arguments = [*command(host, *watch), "--sysfs", str(tmp_path)]
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "names no CPU" in result.stderr


def test_missing_rich_is_one_sentence(host: Host) -> None:
    arguments = command(host)[3:]
    code = (
        "import sys; sys.modules['rich'] = None; from isolcpus_dp import cli;"
        f" sys.exit(cli.main({arguments}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "rich, which draws the map, is missing: install python3-rich\n"
