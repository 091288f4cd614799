"""The busy loop's process, with a program in the place of oslat."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isolcpus_dp.measure import oslat
from isolcpus_dp.measure.oslat import Loop, OslatError, Programs
from isolcpus_dp.measure.result import Histogram

RESULT = """{"file_version": 1, "num_threads": 1, "thread": {"0": {"cpu": 3, "freq": 2445,
"min": 1, "avg": 1.5, "max": 1117, "duration": 2.000,
"histogram": {"1": 69012055, "2": 354, "9": 0, "1024": 2}}}}"""
HISTOGRAM = Histogram({1: 69012055, 2: 354, 1024: 2}, 1117.0, 2.0)

Install = Callable[[str], Programs]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a program as oslat; `result` is the file for its result."""

    def installed(code: str) -> Programs:
        program = tmp_path / "bin/oslat"
        program.parent.mkdir()
        program.write_text(
            f"#!{sys.executable}\n"
            "import signal, sys\n"
            "result = sys.argv[sys.argv.index('--json') + 1]\n" + code
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return Programs()

    return installed


async def started(programs: Programs, directory: Path) -> Loop:
    return await Loop.start(programs, 3, 0, 60, directory)


def thread(proc: Path, tid: str, cpus: str, flags: int = 0x400040) -> None:
    """Describes a thread of process 812."""
    task = proc / "812/task" / tid
    task.mkdir(parents=True)
    (task / "status").write_text(f"Name:\toslat\nCpus_allowed_list:\t{cpus}\n")
    (task / "stat").write_text(f"{tid} (os) lat) R 1 812 812 34816 812 {flags} 0 0 0 0 5 7\n")


def test_result_has_the_histogram_of_the_thread() -> None:
    assert oslat.parse(RESULT) == HISTOGRAM


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"thread": {}}', '{"thread": {"0": {}}}', '{"thread": {"0": 1}}'),
        RESULT.replace('"1":', '"x":'),
        RESULT.replace('"max": 1117,', ""),
        RESULT.replace('{"0"', '{"1": {}, "0"'),
    ],
)
def test_other_result_is_refused_with_what_is_needed(text: str) -> None:
    with pytest.raises(OslatError) as caught:
        oslat.parse(text)
    assert str(caught.value) == (
        "the result of oslat cannot be read: it must be JSON with one thread and its max, duration"
        " and histogram"
    )


def test_command_names_the_cpu_and_one_for_the_main_thread(install: Install) -> None:
    programs = install("")
    assert oslat.command(programs, 3, 0, 59.5, Path("/tmp/3.json")) == (
        *(programs.setpriv, "--pdeathsig", "KILL", "--", programs.oslat),
        *("--cpu-list", "3", "--cpu-main-thread", "0", "--duration", "120"),
        *("--bucket-size", "1024", "--zero-omit", "--json", "/tmp/3.json"),
    )


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("oslat", "oslat is missing: install rt-tests (Debian) or realtime-tests (Fedora, EL)"),
        ("setpriv", "setpriv is missing: install util-linux"),
    ],
)
def test_missing_program_is_named_with_its_package(
    missing: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == missing else f"/bin/{name}")
    with pytest.raises(OslatError) as caught:
        Programs()
    assert str(caught.value) == sentence


def test_threads_on_a_cpu_may_run_on_no_other(tmp_path: Path) -> None:
    for tid, cpus in (("812", "0"), ("813", "3"), ("814", "0-3"), ("815", "3,5")):
        thread(tmp_path, tid, cpus)
    assert oslat.threads_on(tmp_path, 812, 3) == {813}
    assert oslat.threads_on(tmp_path, 813, 3) == set()


def test_thread_that_is_ending_is_not_the_measuring_one(tmp_path: Path) -> None:
    thread(tmp_path, "813", "3", flags=0x400044)
    assert oslat.threads_on(tmp_path, 812, 3) == set()
    thread(tmp_path, "814", "3")
    assert oslat.threads_on(tmp_path, 812, 3) == {814}


async def test_thread_that_is_there_when_the_test_starts_is_the_measuring_one(
    install: Install, tmp_path: Path
) -> None:
    programs = install(
        """
import os, pathlib
tasks = pathlib.Path(result).parent / f"proc/{os.getpid()}/task"
def show(tid, cpus):
    (tasks / tid).mkdir(parents=True)
    (tasks / tid / "status").write_text(f"Cpus_allowed_list:\\t{cpus}\\n")
    (tasks / tid / "stat").write_text(f"{tid} (oslat) R 1 1 1 1 1 64 0\\n")
show("812", "0")
show("813", "3")
print("Pre-heat for 1 seconds...")
(tasks / "813/stat").write_text("813 (oslat) R 1 1 1 1 1 68 0\\n")
print("Test starts...")
show("814", "3")
signal.pause()
"""
    )
    loop = await started(programs, tmp_path)
    assert await loop.measuring(tmp_path / "proc") == 814
    loop.kill()
    await loop.gone()


async def test_loop_that_never_measures_is_reported(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oslat, "_MOST_START_SECONDS", 0.01)
    loop = await started(install("print('Pre-heat'); signal.pause()"), tmp_path)
    with pytest.raises(OslatError, match=r"^oslat did not begin to measure within 0.01 s$"):
        await loop.measuring()
    loop.kill()
    await loop.gone()


async def test_loop_that_ends_before_it_measures_says_why(install: Install, tmp_path: Path) -> None:
    loop = await started(install("sys.exit('no such CPU')"), tmp_path)
    with pytest.raises(OslatError, match=r"^oslat ended with exit status 1: no such CPU$"):
        await loop.measuring()


async def test_loop_writes_its_result_when_it_is_stopped(install: Install, tmp_path: Path) -> None:
    programs = install(
        f"""
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
open(result + ".ready", "w").close()
signal.sigwait([signal.SIGTERM])
open(result, "w").write('''{RESULT}''')
"""
    )
    loop = await started(programs, tmp_path)
    while not (tmp_path / "3.json.ready").exists():  # noqa: ASYNC110 (no event tells it)
        await asyncio.sleep(0.01)
    assert await loop.stop() == HISTOGRAM


async def test_loop_without_a_result_is_reported(install: Install, tmp_path: Path) -> None:
    loop = await started(install(""), tmp_path)
    with pytest.raises(OslatError, match=r"^the result of oslat cannot be read: "):
        await loop.stop()


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("sys.exit(0)", "oslat ended with exit status 0"),
        (
            "sys.exit('usage\\nFATAL: oslat: numa_parse_cpustring_all failed.\\n\\n')",
            "oslat ended with exit status 1: FATAL: oslat: numa_parse_cpustring_all failed.",
        ),
        ("signal.raise_signal(signal.SIGKILL)", "oslat ended by signal 9"),
        (
            "sys.exit('oslat: unrecognized option \\'--json\\'')",
            "this oslat has no option --json: install a newer rt-tests, or realtime-tests",
        ),
    ],
)
async def test_loop_that_ends_says_why(
    code: str, sentence: str, install: Install, tmp_path: Path
) -> None:
    loop = await started(install(code), tmp_path)
    assert await loop.ended() == sentence


async def test_killed_loop_is_gone(install: Install, tmp_path: Path) -> None:
    loop = await started(install("signal.pause()"), tmp_path)
    loop.kill()
    await loop.gone()
    loop.kill()  # has no effect any more
    assert await loop.ended() == "oslat ended by signal 9"


async def test_loop_ends_with_the_command(install: Install, tmp_path: Path) -> None:
    """Also if the command is killed, so that it cannot end its loops."""
    programs = install("print('runs', flush=True); signal.pause()")
    words = oslat.command(programs, 3, 0, 60, tmp_path / "3.json")
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import subprocess, sys, signal; subprocess.Popen(sys.argv[1:]); signal.pause()",
        *words,
        stdout=asyncio.subprocess.PIPE,
    )
    assert command.stdout
    assert await command.stdout.readline() == b"runs\n"
    command.kill()
    # The pipe closes when the last process that has it has ended.
    assert await asyncio.wait_for(command.stdout.read(), 20) == b""
    await command.wait()
