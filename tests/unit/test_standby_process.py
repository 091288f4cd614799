"""The main process of the device plugin in this process: its workers, delays and signals."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from isolcpus_dp import config, pool
from isolcpus_dp.host import machine
from isolcpus_dp.host.sockets import Identity
from isolcpus_dp.kubelet import daemon, standby
from isolcpus_dp.kubelet.endpoint import EndpointError
from isolcpus_dp.kubelet.outcome import Earlier, Reporter
from isolcpus_dp.service import notify, pages, process, worker
from isolcpus_dp.simulator.machine import MadeUpMachine

from .conftest import MakeUp

SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM)
KUBELET = Identity(7, 100)

Life = Callable[[Reporter], None]  # what one worker does


class Exited(Exception):
    """In place of the end of a worker; the argument is its exit status, None if it runs on."""


class Worker:
    """A worker that has ended, or that ends when it is told to."""

    def __init__(self, end: worker.End | None) -> None:
        self.sent: list[signal.Signals] = []
        self._end = end

    def poll(self) -> worker.End | None:
        return self._end

    def send(self, number: signal.Signals) -> None:
        self.sent.append(number)
        self._end = worker.End(0, ())


class Process:
    """The main process, whose workers live as the test says, one after the other."""

    def __init__(self, host: daemon.Host, file: Path) -> None:
        self.host = host
        self.file = file
        self.lives: list[Life] = []
        self.workers: list[Worker] = []
        self.resources: list[str] = []  # the first one of each worker
        self.earlier: list[Earlier] = []  # what each worker was told
        self.claims: list[pool.Claims] = []
        self.waits: list[float] = []  # seconds until the next attempt after each failure
        self._sigtimedwait = signal.sigtimedwait

    def serve(self, *lives: Life) -> None:
        self.lives += lives
        standby.serve(self.host, self.file)

    def wait(self, numbers: Iterable[int], seconds: float) -> signal.struct_siginfo | None:
        """sigtimedwait(), in no time."""
        if not (info := self._sigtimedwait(numbers, 0)):
            self.waits.append(seconds)
        return info

    def fork(self, work: Callable[[worker.Tell], None]) -> Worker:
        told: list[str] = []
        try:
            work(told.append)
            end: worker.End | None = worker.End(0, tuple(told))
        except Exited as exited:
            [status] = exited.args
            end = None if status is None else worker.End(status, tuple(told))
        if end:
            send(signal.SIGCHLD)
        self.workers.append(Worker(end))
        return self.workers[-1]


def send(number: signal.Signals) -> None:
    """To this thread: others, such as those of gRPC, do not hold it back."""
    signal.pthread_kill(threading.get_ident(), number)


def stop(_: Reporter) -> None:
    """The last worker: the main process is asked to stop while it runs."""
    send(signal.SIGTERM)
    raise Exited(None)


@pytest.fixture
def main(
    make_up: MakeUp,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Process]:
    host: MadeUpMachine = make_up("1x4x1", {2, 3})
    (tmp_path / "run").mkdir()
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text("[Plugin]\nResourceName=a.io/first\n")
    made = Process(daemon.Host(host.root, tmp_path, tmp_path / "run"), file)

    class Daemon:
        def __init__(
            self,
            host: daemon.Host,
            settings: config.Config,
            present: machine.Machine,
            claims: pool.Claims,
            reporter: Reporter,
            earlier: Earlier,
        ) -> None:
            made.resources.append(settings.pools[0].resource_name)
            made.earlier.append(earlier)
            made.claims.append(claims)
            self._reporter = reporter

        async def live(self) -> None:
            made.lives.pop(0)(self._reporter)

    def exit_now(status: int) -> NoReturn:
        raise Exited(status)

    def run(live: Callable[[], Coroutine[object, None, None]]) -> None:
        """It waits for nothing, so it needs no event loop."""
        with contextlib.suppress(StopIteration):
            live().send(None)

    monkeypatch.setattr(daemon, "Daemon", Daemon)
    monkeypatch.setattr(process, "exit_now", exit_now)
    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(worker, "fork", made.fork)
    monkeypatch.setattr(pages, "release", lambda: None)
    monkeypatch.setattr(signal, "sigtimedwait", made.wait)
    # Constant, so that the waits are what is planned.
    monkeypatch.setattr(standby, "time", SimpleNamespace(monotonic=lambda: 100.0))
    caplog.set_level(logging.INFO, "isolcpus_dp")
    umask = os.umask(0o022)
    os.umask(umask)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handler = signal.getsignal(signal.SIGCHLD)
    yield made
    gc.unfreeze()
    os.umask(umask)
    while made.wait(SIGNALS, 0):  # left by a test that failed
        pass
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.signal(signal.SIGCHLD, handler)


def registered(reporter: Reporter) -> None:
    """It registered, and ended with its kubelet."""
    reporter.called(KUBELET)
    reporter.registered()


def held(_: Reporter) -> None:
    raise EndpointError("the socket is held")


def killed(_: Reporter) -> None:
    raise Exited(-signal.SIGKILL)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """No garbage is collected by itself."""
    gc.disable()
    yield
    gc.enable()


def test_worker_that_ended_with_its_kubelet_is_replaced_at_once(main: Process) -> None:
    main.serve(registered, registered, registered, stop)
    assert main.earlier == [Earlier(), *(Earlier(KUBELET, seconds) for seconds in (0.1, 0.2, 0.4))]
    assert main.waits == []


def test_stop_ends_the_worker_first(main: Process, caplog: pytest.LogCaptureFixture) -> None:
    main.serve(stop)
    assert [one.sent for one in main.workers] == [[signal.SIGTERM]]
    assert caplog.messages == ["asked to stop"]


def test_systemd_is_told_after_the_end_of_the_worker(
    main: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[signal.Signals]] = []

    def tell(text: str) -> None:
        assert text == "STOPPING=1"
        told.append(list(main.workers[-1].sent))

    monkeypatch.setattr(notify, "Systemd", lambda: SimpleNamespace(notify=tell))
    main.serve(stop)
    assert told == [[signal.SIGTERM]]


def test_failure_is_logged_once_and_tried_again_ever_later(
    main: Process, caplog: pytest.LogCaptureFixture
) -> None:
    main.serve(*[held] * 9, killed, stop)
    assert [round(seconds, 6) for seconds in main.waits] == [
        0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0,
    ]  # fmt: skip
    assert caplog.messages == [
        "the socket is held; trying again, at intervals of up to 10 s",
        "the worker was killed by SIGKILL; trying again, at intervals of up to 10 s",
        "asked to stop",
    ]


def test_registration_resets_the_delay(main: Process) -> None:
    def registered_and_killed(reporter: Reporter) -> None:
        registered(reporter)
        killed(reporter)

    main.serve(held, held, registered_and_killed, held, stop)
    assert [round(seconds, 6) for seconds in main.waits] == [0.1, 0.2, 0.1, 0.2]


def test_kubelet_that_was_a_good_one_is_not_called_later_because_its_worker_was_killed(
    main: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_after_an_hour(reporter: Reporter) -> None:
        registered(reporter)
        monkeypatch.setattr(standby, "time", SimpleNamespace(monotonic=lambda: 3700.0))
        killed(reporter)

    main.serve(registered, registered, killed_after_an_hour, stop)
    assert main.earlier == [
        Earlier(), Earlier(KUBELET, 0.1), Earlier(KUBELET, 0.2), Earlier(),
    ]  # fmt: skip


def test_next_worker_learns_what_was_claimed(main: Process) -> None:
    def claims(reporter: Reporter) -> None:
        reporter.claimed({6: "a.io/first"})

    main.serve(claims, registered, stop)
    known = {2: "a.io/first", 3: "a.io/first"}
    assert [dict(one.resources) for one in main.claims] == [
        known, {**known, 6: "a.io/first"}, {**known, 6: "a.io/first"},
    ]  # fmt: skip


def test_used_up_descriptors_are_explained(main: Process, caplog: pytest.LogCaptureFixture) -> None:
    def used_up(_: Reporter) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    main.serve(used_up, stop)
    assert caplog.messages[0] == (
        "[Errno 24] Too many open files: see the limits of open files and of inotify(7),"
        " fs.inotify.max_user_instances and max_user_watches; trying again, at intervals of up to"
        " 10 s"
    )


def test_failed_fork_is_tried_again(main: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(_: object) -> NoReturn:
        monkeypatch.setattr(worker, "fork", main.fork)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(worker, "fork", fork)
    main.serve(stop)
    assert main.waits == [pytest.approx(0.1)]


def test_machine_that_cannot_be_read_is_tried_again(
    main: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = machine.read

    def fails(*_: object) -> NoReturn:
        monkeypatch.setattr(machine, "read", read)
        raise machine.MachineError("no CPUs")

    monkeypatch.setattr(machine, "read", fails)
    main.serve(stop)
    assert main.waits == [pytest.approx(0.1)]


def changed(main: Process, text: str, *signals: signal.Signals) -> Life:
    """The configuration is changed, and signals are sent, while the worker runs."""

    def life(_: Reporter) -> None:
        main.file.write_text(text)
        for number in signals:
            send(number)
        raise Exited(None)

    return life


def test_reload_replaces_the_worker(main: Process, caplog: pytest.LogCaptureFixture) -> None:
    other = "[Plugin]\nResourceName=a.io/second\n"
    main.serve(changed(main, other, signal.SIGHUP), stop)
    assert main.resources == ["a.io/first", "a.io/second"]
    assert main.workers[0].sent == [signal.SIGTERM]
    assert main.earlier == [Earlier(), Earlier()]
    assert caplog.messages[0] == "read the configuration again: registering again"


class Cycle:
    """An object that only a garbage collection removes."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("no_collection")
def test_reload_removes_garbage_also_if_it_was_frozen(main: Process) -> None:
    seen: list[Cycle | None] = []

    def look(reporter: Reporter) -> None:
        seen.extend(one() for one in found)
        stop(reporter)

    # The first one is frozen before the first worker is forked.
    found = [weakref.ref(Cycle())]
    change = changed(main, "[Plugin]\nResourceName=a.io/second\n", signal.SIGHUP)

    def leave_more(reporter: Reporter) -> None:
        found.append(weakref.ref(Cycle()))
        change(reporter)

    main.serve(leave_more, look)
    assert seen == [None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[Plugin]\nResourceName=a.io/first\n", "nothing has changed"),
        ("[Plugin]\nResourceName=none\n", "the earlier configuration stays in force"),
    ],
)
def test_reload_without_a_new_configuration_keeps_the_worker(
    main: Process, caplog: pytest.LogCaptureFixture, text: str, message: str
) -> None:
    main.serve(changed(main, text, signal.SIGHUP, signal.SIGTERM))
    assert len(main.workers) == 1
    assert caplog.messages[0].endswith(message)


def test_files_in_the_runtime_directory_last_as_long_as_the_process(main: Process) -> None:
    seen = {}

    def look(_: Reporter) -> None:
        seen.update({path.name: path.read_text() for path in (main.file.parent / "run").iterdir()})

    main.serve(look, stop)
    fingerprint = config.fingerprint(config.load(main.file, 3))
    assert seen == {"isolcpus-dp.pid": f"{os.getpid()}\n", "configuration": f"{fingerprint}\n"}
    assert list((main.file.parent / "run").iterdir()) == []


def test_replaced_directory_that_is_read_only_in_the_sandbox_ends_the_process(
    main: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK)
    with pytest.raises(standby.SandboxError, match=r"was replaced and cannot be written"):
        main.serve(registered, held)
