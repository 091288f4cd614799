"""`isolcpus-dp map` as an operator runs it, with a daemon and a kubelet."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isolcpus_dp.simulator.kubelet import Kubelet, Pod
from tests.testbed.daemon import plain_environment
from tests.testbed.host import RESOURCE, Host

TIMEOUT = 20  # seconds


async def started(host: Host, *more: str | Path) -> Process:
    environment = {**plain_environment(), "COLUMNS": "120", "PYTHONUNBUFFERED": "1"}
    return await asyncio.create_subprocess_exec(
        *host.command("map", *more), stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment
    )


async def run(host: Host, *more: str | Path) -> tuple[int | None, str, str]:
    process = await started(host, *more)
    stdout, stderr = await asyncio.wait_for(process.communicate(), TIMEOUT)
    return process.returncode, stdout.decode(), stderr.decode()


@contextlib.asynccontextmanager
async def watching(host: Host, *more: str | Path) -> AsyncIterator[Process]:
    process = await started(host, "--watch", *more)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def line(process: Process, words: str) -> str:
    """The next line that contains these words."""
    assert process.stdout

    async def read() -> str:
        assert process.stdout
        async for text in process.stdout:
            if words in text.decode():
                return text.decode()
        raise AssertionError(f"the process ended without printing: {words}")

    return await asyncio.wait_for(read(), TIMEOUT)


@pytest.mark.usefixtures("registered")
async def test_map_shows_the_owners_that_the_kubelet_reports(host: Host, kubelet: Kubelet) -> None:
    await kubelet.admit(Pod("forwarder", {RESOURCE: 2}))
    status, picture, stderr = await run(host)
    assert (status, stderr) == (0, "")
    assert "│ │ .  0  A  1  .  2  .  3 │ │" in picture
    assert "│ │ . 12  o 13  . 14  . 15 │ │" in picture
    assert "A  default/forwarder/main  1,9 " in picture
    assert "not seen" not in picture


async def test_map_works_without_a_kubelet(host: Host) -> None:
    status, picture, stderr = await run(host)
    assert (status, stderr) == (0, "")
    assert "o  isolated, owner unknown  1,5,9,13" in picture
    assert "not seen: CPU owners: /" in picture


@pytest.mark.usefixtures("registered")
async def test_map_is_written_to_an_svg_file(host: Host, kubelet: Kubelet) -> None:
    file = host.directory / "map.svg"
    await kubelet.admit(Pod("forwarder", {RESOURCE: 2}))
    assert await run(host, "--svg", file) == (0, "", "")
    drawn = [text.strip() for text in ET.parse(file).getroot().itertext()]
    assert "16 CPUs, 2 packages, 2 NUMA nodes: 4 isolated, 2 owned" in drawn
    assert "CPU 9\nA default/forwarder/main: CPU 1,9 of windriver.com/isolcpus" in drawn


def test_picture_in_the_readme_is_what_is_drawn(tmp_path: Path) -> None:
    """`make picture` draws it again."""
    root = Path(__file__).parents[2]
    words: list[str | Path] = [sys.executable, root / "tools/picture", tmp_path / "map.svg"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    subprocess.run(words, check=True, timeout=60, env=environment)
    assert (tmp_path / "map.svg").read_text() == (root / "docs/map.svg").read_text()


async def test_unwritable_svg_file_is_a_one_line_error(host: Host) -> None:
    file = host.directory / "nowhere" / "map.svg"
    status, _, stderr = await run(host, "--svg", file)
    assert status == 1
    assert stderr == (f"{file} cannot be written: No such file or directory: choose another file\n")


@pytest.mark.usefixtures("registered")
async def test_watch_follows_cpus_and_containers_until_interrupted(
    host: Host, kubelet: Kubelet
) -> None:
    pods = host.kubelet_dir / "pods"
    pods.mkdir()
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
        stdout, stderr = await asyncio.wait_for(process.communicate(), TIMEOUT)
    assert (process.returncode, stdout.split(), stderr) == (0, [b"x", b"offline", b"13"], b"")


@pytest.mark.usefixtures("registered")
async def test_watch_follows_pods_in_another_root_directory(host: Host, kubelet: Kubelet) -> None:
    root = host.directory / "root"
    (root / "pods/uid").mkdir(parents=True)
    (host.kubelet_dir / "pod-resources").rename(root / "pod-resources")
    file = host.directory / "map.conf"
    file.write_text(f"[Kubelet]\nRootDirectory={root}\n")
    async with watching(host, "--config", file) as process:
        await line(process, "o  isolated, free  1,5,9,13")
        await kubelet.admit(Pod("forwarder", {RESOURCE: 2}))
        await line(process, "A  default/forwarder/main  1,9 ")
        kubelet.delete("forwarder")
        (root / "pods/uid").rmdir()
        await line(process, "o  isolated, free  1,5,9,13")


async def test_watch_sleeps_while_nothing_changes(host: Host) -> None:
    async with watching(host) as process:
        await line(process, "pod-resources: No such file or directory")
        await asyncio.sleep(0.5)
        before = _switches(process.pid)
        await asyncio.sleep(2)
        assert _switches(process.pid) - before <= 1


def _switches(pid: int) -> int:
    """The voluntary context switches of the main thread."""
    for text in Path(f"/proc/{pid}/status").read_text().splitlines():
        if text.startswith("voluntary_ctxt_switches"):
            return int(text.split()[1])
    raise AssertionError(pid)


def test_svg_and_watch_exclude_each_other(host: Host) -> None:
    result = subprocess.run(
        host.command("map", "--watch", "--svg", "x"), capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "not allowed with argument" in result.stderr


@pytest.mark.parametrize("watch", [[], ["--watch"]])
def test_wrong_sysfs_is_a_one_line_error(host: Host, tmp_path: Path, watch: list[str]) -> None:
    # The last --sysfs overrides the first.
    arguments = host.command("map", *watch, "--sysfs", tmp_path)
    result = subprocess.run(arguments, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "names no CPU" in result.stderr


def without_rich(host: Host, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs the command where python3-rich is not installed."""
    command = host.command("map", *more, prelude="import sys; sys.modules['rich'] = None")
    return subprocess.run(command, capture_output=True, text=True)


def test_missing_rich_is_a_one_line_error(host: Host) -> None:
    result = without_rich(host)
    assert result.returncode == 1
    assert result.stderr == "rich, which draws the map, is missing: install python3-rich\n"


def test_svg_file_needs_no_rich(host: Host) -> None:
    result = without_rich(host, "--svg", host.directory / "map.svg")
    assert (result.returncode, result.stderr) == (0, "")
    assert (host.directory / "map.svg").exists()
