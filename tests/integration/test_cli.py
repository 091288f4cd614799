"""The command line: what goes in, what comes out, and the exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.simulator.machine import MadeUpMachine, regular


def isolcpus_dp(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isolcpus_dp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def simulation(*arguments: str | Path) -> tuple[subprocess.CompletedProcess[str], float]:
    """A simulation, and how many seconds it took.

    On a busy machine the daemon may be late for the pod that is admitted after 60 ms.
    """
    for _ in range(10):
        began = time.monotonic()
        result = isolcpus_dp("simulate", *arguments)
        if "no healthy devices present" not in result.stdout + result.stderr:
            break
    return result, time.monotonic() - began


def test_simulation_plays_to_its_end_and_leaves_nothing() -> None:
    result, seconds = simulation("--machine", "2x8x2", "--isolated", "2-7,18-23")
    assert (result.returncode, result.stderr) == (0, "")
    assert seconds < 15
    text = result.stdout
    assert "isolated 2-7,18-23" in text
    assert "has 12 devices of windriver.com/isolcpus" in text
    assert "sees CPU 2 offline" in text
    assert "sees CPU 2 online" in text
    assert text.count(" owns CPUs ") == 3
    assert "NUMA node 0, core by core: 2,18 3,19" in text
    assert text.splitlines()[-1].split()[0] == "end"


def test_simulation_plays_with_the_resource_that_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text("[Plugin]\nCPUs=3-7,19-23\nGranularity=core\n")
    result, _ = simulation("--machine", "2x8x2", "--config", file)
    assert (result.returncode, result.stderr) == (0, "")
    assert "has 5 devices of windriver.com/isolcpus" in result.stdout
    assert "sees CPU 3 offline" in result.stdout
    assert "controller owns CPUs 4-5,20-21" in result.stdout


def test_simulation_without_isolated_cpus_says_what_to_do() -> None:
    result = isolcpus_dp("simulate", "--machine", "1x1x2")
    assert result.returncode == 0
    assert "0 devices are too few for the pods; use --machine" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--machine", "2x8"],
            "'2x8' is not a machine: use packages x cores x threads, such as 2x8x2",
        ),
        (["--machine", "1x2x1", "--isolated", "5"], "'5' goes beyond CPU 1"),
        (["--isolated", "2"], "--isolated needs --machine"),
        (["--machine", "1x2x1", "--config", "/nowhere"], "/nowhere: no such file"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_status_two(
    arguments: list[str], sentence: str
) -> None:
    result = isolcpus_dp("simulate", *arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_configuration_names_file_section_key_value_and_what_is_allowed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "wrong.conf"
    file.write_text("[Plugin]\nDeviceNodes=perhaps\n")
    result = isolcpus_dp("serve", "--config", file)
    assert result.returncode == 2
    assert result.stderr == (
        f"{file}: [Plugin] DeviceNodes=perhaps: unknown value; use auto, yes or no\n"
    )


def test_folder_that_is_no_sysfs_is_named(tmp_path: Path) -> None:
    result = isolcpus_dp("serve", "--sysfs", tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        f"{tmp_path}/devices/system/cpu/present names no CPU:"
        " --sysfs must be a directory laid out like /sys\n"
    )


def test_unknown_subcommand_is_wrong_usage() -> None:
    assert isolcpus_dp("frobnicate").returncode == 2


def test_daemon_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys, isolcpus_dp.cli, isolcpus_dp.service;"
        "print([name for name in sys.modules if 'simulator' in name or 'podresources' in name])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """The options for a made-up machine without a kubelet."""
    MadeUpMachine(tmp_path / "sys", regular(1, 4, 2), (2, 3))
    return ["--sysfs", str(tmp_path / "sys"), "--kubelet-dir", str(tmp_path)]


# What an operator looks with.
LOOKS = pytest.mark.parametrize(
    "look",
    [
        ["status"],
        ["status", "--json"],
        ["map"],
        ["check", "--interval=0"],
        ["check", "--only=smt-siblings", "--json"],
    ],
    ids=" ".join,
)


@LOOKS
def test_reader_that_has_seen_enough_is_no_traceback(look: list[str], folders: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "isolcpus_dp", *look, *folders]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@LOOKS
def test_full_disk_is_one_sentence(look: list[str], folders: list[str]) -> None:
    command = [sys.executable, "-m", "isolcpus_dp", *look, *folders]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (
        1,
        "could not write to standard output: No space left on device\n",
    )


@pytest.fixture
def counting(folders: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A check that counts interrupts for a minute."""
    command = [sys.executable, "-X", "importtime", "-m", "isolcpus_dp", "check", *folders]
    process = subprocess.Popen(
        [*command, "--only=irq-counts", "--interval=60"],
        # A shell's job in the background, which the tests may be, ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_check_that_is_interrupted_ends_at_once_without_a_traceback(
    counting: subprocess.Popen[str],
) -> None:
    assert counting.stderr
    for line in counting.stderr:  # of what it imports
        if "isolcpus_dp.report.check.table" in line:
            break
    counting.send_signal(signal.SIGINT)
    stdout, stderr = counting.communicate(timeout=20)
    assert (counting.returncode, stdout) == (1, "")
    assert "Traceback" not in stderr
