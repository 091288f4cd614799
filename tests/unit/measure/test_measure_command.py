"""From the options to what is printed, with loops and a recorder that do nothing.

The machine has 4 cores with 2 threads; CPU 4 is the sibling of 0. CPUs 1-3 and 5-7 are isolated.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isolcpus_dp import arguments, cli
from isolcpus_dp.measure import command, lock, oslat
from isolcpus_dp.measure.activity import Activity, Recording
from isolcpus_dp.measure.command import CommandError, Output, RequestError, progress_text
from isolcpus_dp.measure.result import Histogram, Result
from isolcpus_dp.measure.session import Progress
from isolcpus_dp.measure.show import compare, document, picture, table
from tests.unit.conftest import MakeUp


class FakeLoop:
    def __init__(self, cpu: int, stage: Stage) -> None:
        self.pid = 100 + cpu
        self.cpu = cpu
        self.stage = stage

    async def measuring(self) -> int:
        return 200 + self.cpu

    async def ended(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> Histogram:
        return Histogram({1: 1000}, self.stage.longest.get(self.cpu, 5.0), 0.1)

    def kill(self) -> None:
        pass

    async def gone(self) -> None:
        pass


class FakeRecorder:
    """Sends a signal to this process when it begins, if a test asks for it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.cpus: set[int] = set()

    def __enter__(self) -> FakeRecorder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stage.cleaned_up = True

    def ignore(self, pids: Iterable[int]) -> None:
        pass

    def begin(self, cpus: Iterable[int], loops: Mapping[int, int]) -> None:
        self.cpus |= set(cpus)
        if self.stage.signal:
            signal.raise_signal(self.stage.signal)

    def end(self, cpus: Iterable[int]) -> None:
        pass

    def forget(self, cpus: Iterable[int]) -> None:
        self.cpus -= set(cpus)

    def recording(self) -> Recording:
        return Recording({cpu: Activity(0.1) for cpu in self.cpus})


@dataclass
class Stage:
    """What a test decides, and what it looks at."""

    sysfs: Path
    directory: Path
    longest: dict[int, float] = field(default_factory=dict)  # us, by CPU
    signal: signal.Signals | None = None
    cleaned_up: bool = False
    results: list[Result] = field(default_factory=list)

    def run(self, *words: str) -> Output:
        return command.run(self.options(*words))

    def options(self, *words: str) -> SimpleNamespace:
        return SimpleNamespace(**vars(arguments.parse(self.words(*words))))

    def words(self, *words: str) -> list[str]:
        host = ["--sysfs", str(self.sysfs), "--kubelet-dir", str(self.directory)]
        return ["measure", *host, "--duration", "100ms", *words]

    def refusal(self, kind: type[Exception], *words: str) -> str:
        with pytest.raises(kind) as caught:
            self.run(*words)
        return str(caught.value)


@pytest.fixture
def stage(make_up: MakeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage(make_up("1x4x2", {1, 2, 3, 5, 6, 7}).root, tmp_path)

    async def start(programs: Any, cpu: int, *_: object) -> FakeLoop:
        return FakeLoop(cpu, stage)

    def shown(result: Result) -> str:
        stage.results.append(result)
        return "the table"

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(lock, "FILE", tmp_path / "lock")
    monkeypatch.setattr(oslat, "Programs", lambda: "found")
    monkeypatch.setattr(oslat.Loop, "start", start)
    monkeypatch.setattr(command, "Recorder", lambda *_, **__: FakeRecorder(stage))
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None)
    monkeypatch.setattr(table, "for_stdout", shown)
    monkeypatch.setattr(document, "as_json", lambda result, before=None: f"JSON, {before}")
    return stage


def test_table_of_all_free_cpus_is_printed(stage: Stage) -> None:
    assert stage.run() == Output("the table", ())
    [result] = stage.results
    assert result.histograms.keys() == {1, 2, 3, 5, 6, 7}
    assert result.isolated == {1, 2, 3, 5, 6, 7}
    assert result.housekeeping == {0, 4}
    assert (result.seconds, result.limit_us) == (0.1, None)
    assert (result.host, result.kernel) == (os.uname().nodename, os.uname().release)
    assert result.began.endswith("+00:00")
    assert stage.cleaned_up


def test_cpu_over_the_limit_is_a_failure(stage: Stage) -> None:
    stage.longest = {2: 20.5, 6: 21.0}
    assert stage.run("--limit", "20us") == Output(
        "the table", ("the limit of 20 us was exceeded on CPU 2,6",)
    )
    assert stage.run("--limit", "21us").failures == ()
    assert stage.run().failures == ()


def test_json_is_printed_without_the_table(stage: Stage) -> None:
    assert stage.run("--json") == Output("JSON, None", ())
    assert stage.results == []


def test_comparison_follows_the_table(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "read", lambda path: f"read from {path}")
    monkeypatch.setattr(compare, "as_text", lambda before, result: f"with what was {before}")
    assert stage.run("--compare", "a.json").text == "the table\n\nwith what was read from a.json"
    assert stage.run("--compare", "a.json", "--json").text == "JSON, read from a.json"


def test_picture_is_written_beside_the_table(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    monkeypatch.setattr(picture, "write", lambda result, path: written.append(path))
    assert stage.run("--svg", str(tmp_path / "a.svg")).text == "the table"
    assert written == [tmp_path / "a.svg"]


def test_table_is_printed_also_if_the_picture_fails(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(result: Result, path: Path) -> None:
        raise picture.PictureError(f"could not write {path}: no space")

    monkeypatch.setattr(picture, "write", fail)
    path = tmp_path / "a.svg"
    assert stage.run("--svg", str(path)) == Output(
        "the table", (f"could not write {path}: no space",)
    )


def test_interrupted_measurement_prints_what_it_has(stage: Stage) -> None:
    stage.signal = signal.SIGINT
    output = stage.run("--duration", "600s")
    assert output == Output("the table", ("interrupted after 0 of 600 s",))
    assert stage.results[0].histograms.keys() == {1, 2, 3, 5, 6, 7}
    assert stage.cleaned_up


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_measurement_prints_nothing(stage: Stage, number: signal.Signals) -> None:
    stage.signal = number
    assert stage.refusal(CommandError, "--duration", "600s") == (
        f"{number.name} ended the measurement; there is no result"
    )
    assert stage.cleaned_up


def test_signal_that_was_blocked_before_ends_the_measurement(stage: Stage) -> None:
    """As in scripts of rpm, which block most signals."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        stage.signal = signal.SIGTERM
        assert stage.refusal(CommandError, "--duration", "600s") == (
            "SIGTERM ended the measurement; there is no result"
        )
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_user_who_is_not_root_is_told_so(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert stage.refusal(CommandError) == (
        "measure must run as root: it reads the kernel's traces and the owners of CPUs"
    )


def test_second_measurement_is_refused(stage: Stage, tmp_path: Path) -> None:
    with lock.hold(tmp_path / "lock"):
        assert stage.refusal(CommandError) == (
            f"another measurement is running and holds {tmp_path}/lock: wait until it has ended"
        )


def test_picture_in_a_missing_directory_is_refused_first(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "absent/a.svg"
    assert stage.refusal(CommandError, "--svg", str(path)) == (
        f"--svg {path}: there is no directory {path.parent}"
    )
    assert stage.refusal(CommandError, "--svg", str(tmp_path)) == (
        f"--svg {tmp_path}: the file cannot be written"
    )
    assert not stage.cleaned_up  # nothing was begun


def test_unreadable_earlier_measurement_is_refused_first(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> None:
        raise document.DocumentError(f"{path} is not JSON")

    monkeypatch.setattr(document, "read", read)
    assert stage.refusal(CommandError, "--compare", "a.json") == "a.json is not JSON"
    assert not stage.cleaned_up


def test_missing_oslat_is_refused_first(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise oslat.OslatError("oslat is missing: install it")

    monkeypatch.setattr(oslat, "Programs", missing)
    assert stage.refusal(CommandError) == "oslat is missing: install it"
    assert not stage.cleaned_up


def test_directory_of_the_kubelet_must_exist(stage: Stage, tmp_path: Path) -> None:
    """A wrong path would look as if no container owned any CPU."""
    path = tmp_path / "absent"
    assert stage.refusal(RequestError, "--kubelet-dir", str(path)) == (
        f"--kubelet-dir {path}: there is no such directory"
    )


def test_exit_status_tells_wrong_usage_from_failure(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(stage.words("--cpus", "9")) == 2
    assert capsys.readouterr().err == ("--cpus: '9' goes beyond CPU 7, the highest possible CPU\n")
    stage.longest = {2: 30.0}
    assert cli.main(stage.words("--limit", "20us")) == 1
    assert capsys.readouterr() == (
        "the table\n",
        "the limit of 20 us was exceeded on CPU 2\n",
    )
    assert cli.main(stage.words()) == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--duration", "1d"], "'1d' is not a duration from 100ms to 168h"),
        (["--limit", "20"], "'20' is not a length from 1us to 1ms"),
    ],
)
def test_wrong_quantity_is_wrong_usage(
    words: list[str], sentence: str, stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        stage.options(*words)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cpus", "dropped", "line"),
    [
        ({2, 3, 4}, set(), "measuring CPU 2-4: 12 of 60 s"),
        ({2, 4}, {3}, "measuring CPU 2,4: 12 of 60 s; dropped: CPU 3"),
        (set(), set(), "watching owned CPUs: 12 of 60 s"),
    ],
)
def test_progress_line_has_the_cpus_and_the_time(
    cpus: set[int], dropped: set[int], line: str
) -> None:
    progress = Progress(frozenset(cpus), 12.3, 60.0, frozenset(dropped))
    assert progress_text(progress) == line
