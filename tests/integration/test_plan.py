"""`isolcpus-dp plan` as a process: for another machine, into a directory, and on this host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command as docs/plan.md shows it, such as isolcpus-dp plan."""
    command = [sys.executable, "-m", "isolcpus_dp", *map(str, words[1:])]
    if words[0] != "isolcpus-dp":
        command = [*map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_machine_that_is_not_here_has_a_plan() -> None:
    ended = run("isolcpus-dp", "plan", "--machine", "2x16x2", "--housekeeping", "2")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(
        "isolated      CPU 2-15,18-31,34-47,50-63\nhousekeeping  CPU 0-1,16-17,32-33,48-49\n"
    )


def test_written_files_are_found_by_their_first_line(tmp_path: Path) -> None:
    """The page writes to / and searches /etc."""
    ended = run("isolcpus-dp", "plan", "--machine", "1x4x1", "--write", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    written = {line[6:] for line in ended.stdout.splitlines() if line.startswith("wrote ")}
    found = run("grep", "-rl", "^# Written by isolcpus-dp plan", tmp_path / "etc")
    assert set(found.stdout.splitlines()) == written
    assert len(written) >= 5


def test_files_of_an_earlier_plan_are_removed(tmp_path: Path) -> None:
    former = tmp_path / "etc/default/grub.d/90-isolcpus-dp.cfg"
    former.parent.mkdir(parents=True)
    former.write_text("# Written by isolcpus-dp plan, which replaces this file.\n")
    release = tmp_path / "os-release"
    release.write_text("ID=fedora\n")
    words = ("--machine", "1x4x1", "--os-release", release, "--write", tmp_path)
    ended = run("isolcpus-dp", "plan", *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"removed {former}" in ended.stdout.splitlines()
    assert list(former.parent.iterdir()) == []


def test_this_host_is_compared_with_its_plan() -> None:
    if run("isolcpus-dp", "plan").returncode:
        pytest.skip("this host has too few cores to isolate one")
    ended = run("isolcpus-dp", "plan", "--diff")
    assert (ended.returncode == 0) == ended.stdout.startswith("nothing to do")
    assert ended.returncode in (0, 1)
    assert ended.stderr == ""
