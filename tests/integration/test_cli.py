"""The command line: arguments, output and exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp.arguments import SUBCOMMANDS
from isolcpus_dp.simulator.machine import MadeUpMachine, regular


def isolcpus_dp(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "isolcpus_dp", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_simulation_runs_to_its_end() -> None:
    result = isolcpus_dp("simulate", "--machine", "2x8x2", "--isolated", "2-7,18-23")
    assert (result.returncode, result.stderr) == (0, "")
    text = result.stdout
    assert "isolated 2-7,18-23" in text
    assert "has 12 devices of windriver.com/isolcpus" in text
    assert "sees CPU 2 offline" in text
    assert "sees CPU 2 online" in text
    assert text.count(" owns CPUs ") == 3
    assert "NUMA node 0, core by core: 2,18 3,19" in text
    assert text.splitlines()[-1].split()[0] == "end"


def test_simulation_uses_the_configured_resource(tmp_path: Path) -> None:
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text("[Plugin]\nCPUs=3-7,19-23\nGranularity=core\n")
    result = isolcpus_dp("simulate", "--machine", "2x8x2", "--config", file)
    assert (result.returncode, result.stderr) == (0, "")
    assert "has 5 devices of windriver.com/isolcpus" in result.stdout
    assert "sees CPU 3 offline" in result.stdout
    assert "controller owns CPUs 4-5,20-21" in result.stdout


def test_simulation_without_isolated_cpus_suggests_a_machine() -> None:
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
def test_wrong_arguments_are_one_line_and_exit_status_two(
    arguments: list[str], sentence: str
) -> None:
    result = isolcpus_dp("simulate", *arguments)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr


def test_wrong_configuration_names_key_and_allowed_values(
    tmp_path: Path,
) -> None:
    file = tmp_path / "wrong.conf"
    file.write_text("[Plugin]\nDeviceNodes=perhaps\n")
    result = isolcpus_dp("serve", "--config", file)
    assert result.returncode == 2
    assert result.stderr == (
        f"{file}: [Plugin] DeviceNodes=perhaps: unknown value; use auto, yes or no\n"
    )


TESTS = pytest.mark.parametrize("daemon", ["serve", "pin"])


@TESTS
def test_right_configuration_passes_the_test_silently(daemon: str, options: list[str]) -> None:
    file = Path(options[-1]) / "isolcpus-dp.conf"
    file.write_text("[Plugin]\nCPUs=2-3\n")
    result = isolcpus_dp(daemon, "--test", *options[:2], "--config", file)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@TESTS
def test_wrong_configuration_fails_the_test(daemon: str, options: list[str]) -> None:
    file = Path(options[-1]) / "isolcpus-dp.conf"
    file.write_text("[Plugin]\nCPUs=2-300\n")
    result = isolcpus_dp(daemon, "--test", *options[:2], "--config", file)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"{file}: [Plugin] CPUs=2-300: '2-300' goes beyond CPU 7, the highest possible CPU; use"
        " isolated, or a CPU list such as 2-3,6-7\n"
    )


def test_too_long_path_of_a_socket_fails_the_test(options: list[str]) -> None:
    directory = f"/{'k' * 80}"
    result = isolcpus_dp("serve", "--test", *options[:2], "--kubelet-dir", directory)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"{directory}/device-plugins/windriver.com-isolcpus.sock is longer than the 107 bytes that"
        " a socket's path may have: shorten ResourceName= or --kubelet-dir\n"
    )


@TESTS
def test_machine_that_cannot_be_read_fails_the_test(daemon: str, tmp_path: Path) -> None:
    result = isolcpus_dp(daemon, "--test", "--sysfs", tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"{tmp_path}/devices/system/cpu/present names no CPU:"
        " --sysfs must be a directory laid out like /sys\n"
    )


@TESTS
def test_test_loads_no_daemon(daemon: str, options: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "isolcpus_dp", daemon, "--test", *options[:2]],
        capture_output=True,
        text=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "isolcpus_dp.config" in loaded
    assert not loaded & {"asyncio", "grpc", "isolcpus_dp.kubelet.daemon", "isolcpus_dp.nri.daemon"}


def test_directory_that_is_not_sysfs_is_named(tmp_path: Path) -> None:
    result = isolcpus_dp("status", "--sysfs", tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        f"{tmp_path}/devices/system/cpu/present names no CPU:"
        " --sysfs must be a directory laid out like /sys\n"
    )


def test_unknown_subcommand_is_wrong_usage() -> None:
    assert isolcpus_dp("frobnicate").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["pin", "--kubelet-dir", "/nowhere"],
            "isolcpus-dp pin: error: pin does not take --kubelet-dir,"
            " which is an option of serve, status, map, check, measure",
        ),
        (
            ["simulate", "--kubelet-dir=/nowhere"],
            "isolcpus-dp simulate: error: simulate does not take --kubelet-dir,"
            " which is an option of serve, status, map, check, measure",
        ),
        (
            ["status", "-v"],
            "isolcpus-dp status: error: status does not take -v, which is an option of serve, pin",
        ),
        (
            ["serve", "--nri-socket", "/nowhere"],
            "isolcpus-dp serve: error: serve does not take --nri-socket,"
            " which is an option of pin, check",
        ),
        (["serve", "--frobnicate"], "isolcpus-dp serve: error: serve does not take --frobnicate"),
        (["map", "now"], "isolcpus-dp map: error: map does not take now"),
        (["-v", "serve"], "isolcpus-dp serve: error: -v must come after serve"),
        (
            ["simulate", "--machine", "1x2x1", "--sysfs", "/sys"],
            "isolcpus-dp simulate: error: argument --sysfs: not allowed with argument --machine",
        ),
        (
            ["check", "--interval", "-1"],
            "isolcpus-dp check: error: argument --interval:"
            " '-1' is not a number of seconds from 0 to 3600",
        ),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_option_that_a_subcommand_does_not_use_is_rejected(
    arguments: list[str], sentence: str
) -> None:
    result = isolcpus_dp(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == sentence


def test_every_subcommand_shows_its_options() -> None:
    for subcommand in SUBCOMMANDS:
        result = isolcpus_dp(subcommand.name, "--help")
        assert (result.returncode, result.stderr) == (0, "")
        for option in subcommand.options:
            assert f"  {option.name} " in result.stdout or f", {option.name} " in result.stdout


def test_daemon_loads_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys, isolcpus_dp.cli, isolcpus_dp.service;"
        "print([name for name in sys.modules if 'simulator' in name or 'podresources' in name])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    """Options for a simulated machine without a kubelet."""
    MadeUpMachine(tmp_path / "sys", regular(1, 4, 2), (2, 3))
    return ["--sysfs", str(tmp_path / "sys"), "--kubelet-dir", str(tmp_path)]


# The commands that print a report.
REPORTS = pytest.mark.parametrize(
    "report",
    [
        ["status"],
        ["status", "--json"],
        ["map"],
        ["check", "--interval=0"],
        ["check", "--only=smt-siblings", "--json"],
    ],
    ids=" ".join,
)


@REPORTS
def test_closed_pipe_prints_no_traceback(report: list[str], options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "isolcpus_dp", *report, *options]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


@REPORTS
def test_full_disk_is_a_one_line_error(report: list[str], options: list[str]) -> None:
    command = [sys.executable, "-m", "isolcpus_dp", *report, *options]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (
        1,
        "could not write to standard output: No space left on device\n",
    )


# The tests may run as a background job of a shell, which ignores the signal. This is not done by
# preexec_fn: with it, Python calls fork(), whose handlers in gRPC can wait for a thread forever.
INTERRUPTIBLE = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


@pytest.fixture
def counting(options: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A check that counts interrupts for a minute."""
    command = ["-X", "importtime", "-m", "isolcpus_dp", "check", *options]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *command, "--only=irq-counts", "--interval=60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def test_interrupted_check_ends_without_a_traceback(
    counting: subprocess.Popen[str],
) -> None:
    assert counting.stderr
    for line in counting.stderr:  # printed by -X importtime
        if "isolcpus_dp.report.check.table" in line:
            break
    counting.send_signal(signal.SIGINT)
    stdout, stderr = counting.communicate(timeout=20)
    assert (counting.returncode, stdout) == (1, "")
    assert "Traceback" not in stderr
