"""The main process of the device plugin: stands by with everything loaded, and forks the workers.

A kubelet admits pods some milliseconds after it has created its socket, and it may start at any
time after the last one has ended. Therefore the next worker must not have to load anything: it is
forked from this process, which has loaded all modules and read machine and configuration.

This process waits for signals, and nothing else. It has no thread, no event loop and no gRPC
object, so that a fork is safe. `daemon` has the life of a worker.

What happens when:

- A worker ends with its kubelet: the next one is forked at once.
- A worker fails: the reason is logged if it is new, and the next one is forked after a delay. The
  delay begins with 0.1 s and doubles up to 10 s; a worker that registers resets it.
- A worker hangs: it no longer feeds systemd's watchdog, and systemd ends all processes of the unit
  and starts it again. While there is no worker, this process feeds it.
- This process is killed: the kernel kills the worker.
- SIGHUP: the configuration is read again. If it is valid and differs, the worker is replaced.
- SIGTERM or SIGINT: the worker is ended, then this process.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from isolcpus_dp import config, pool
from isolcpus_dp.host import devices, machine
from isolcpus_dp.kubelet import daemon, endpoint, paths, prometheus
from isolcpus_dp.kubelet.outcome import Earlier, Outcome, Reporter
from isolcpus_dp.kubelet.runtime_directory import RuntimeDirectory
from isolcpus_dp.service import failures, notify, pages, process, reload, worker
from isolcpus_dp.service.events import Event, emit
from isolcpus_dp.service.failures import Failures

log = logging.getLogger(__name__)

_SIGNALS = frozenset({signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM})

# A registration that lasted so long resets the delay before the same kubelet is called again.
_LASTING_SECONDS = 60.0
# How long a worker may take to end. Less than TimeoutStopSec= of the unit.
_STOP_SECONDS = 5.0


class SandboxError(Exception):
    """The kubelet's directory was replaced and cannot be written; one sentence."""


def serve(host: daemon.Host, config_file: Path | None) -> None:
    """Runs the device plugin until SIGTERM or SIGINT.

    Raises ConfigError if the configuration is wrong at the start, and SandboxError.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, _SIGNALS)
    # If it was ignored by the process that started this one, the kernel would discard how a worker
    # ended (waitpid(2)).
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.umask(0o177)  # the socket is for the kubelet, which is root
    _Standby(host, config_file).run()


class _Standby:
    """The main process: its worker, or the time of the next one."""

    def __init__(self, host: daemon.Host, config_file: Path | None) -> None:
        self._host = host
        self._config_file = config_file
        self._systemd = notify.Systemd()
        self._runtime_directory = RuntimeDirectory(host.runtime_dir)
        self._published = reload.Published(host.runtime_dir)
        self._present: machine.Machine | None = None
        self._settings: config.Config | None = None
        self._claims: pool.Claims | None = None
        self._worker: worker.Worker | None = None
        self._forked = 0.0  # time.monotonic() of the last fork
        self._due: float | None = None  # time.monotonic() of the next attempt after a failure
        self._failures = Failures(self._systemd)
        self._earlier = Earlier()
        self._has_served = False

    def run(self) -> None:
        """Runs until a signal asks to stop."""
        self._runtime_directory.write_pidfile()
        try:
            self._start()
            pages.release()  # when a worker has been forked, so that it does not have to wait
            while (number := self._next_signal()) not in (signal.SIGTERM, signal.SIGINT):
                if number == signal.SIGCHLD:
                    self._reap()
                elif number == signal.SIGHUP:
                    self._reload()
                else:
                    self._start()
            emit(log, Event.STOPPED, "asked to stop")
            # After the worker: a new one may just report READY=1, which systemd then refuses.
            self._stop_worker()
            self._systemd.notify("STOPPING=1")
        finally:
            self._stop_worker()
            self._runtime_directory.clear_pidfile()
            self._published.remove()

    def _next_signal(self) -> int | None:
        """Waits for a signal, or for the time of the next attempt; then it is None."""
        if self._due is None:
            return signal.sigwaitinfo(_SIGNALS).si_signo
        info = signal.sigtimedwait(_SIGNALS, max(0.0, self._due - time.monotonic()))
        return info.si_signo if info else None

    def _start(self) -> None:
        """Forks a worker. The first time, reads machine and configuration; raises ConfigError."""
        self._due = None
        try:
            if self._settings is None:
                self._adopt(*self._read())
            self._forked = time.monotonic()
            self._worker = worker.fork(self._work)
        except machine.MachineError as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(process.explain(error))

    def _read(self) -> tuple[config.Config, pool.Claims]:
        """Reads machine and configuration. Raises MachineError and ConfigError.

        The pools claim their CPUs here, and not in a worker: a later worker may find another
        machine, and must not move a CPU to another pool. What a worker claims later is learned.
        """
        self._present = machine.read(self._host.sysfs, self._present)
        settings = config.load(self._config_file, self._present.last)
        for one in settings.pools:
            paths.endpoint(self._host.kubelet_dir, one.endpoint)  # raises ConfigError
        near = devices.locate(self._host.sysfs, settings.devices)
        return settings, pool.claim(self._present, settings, near)

    def _adopt(self, settings: config.Config, claims: pool.Claims) -> None:
        is_first = self._settings is None
        self._settings, self._claims = settings, claims
        if settings.metrics:
            prometheus.load()
        self._published.write(config.fingerprint(settings))
        if not is_first:
            # What is frozen is never collected: this is for what each reading has left.
            gc.unfreeze()
            gc.collect()
        # Otherwise a garbage collection writes to all pages that the worker shares.
        gc.freeze()

    def _work(self, report: worker.Tell) -> None:
        """Runs in the worker."""
        reporter = Reporter(report)
        present, settings, claims = self._present, self._settings, self._claims
        assert present
        assert settings
        assert claims
        try:
            process.run(
                lambda: daemon.Daemon(
                    self._host, settings, present, claims, reporter, self._earlier
                ).live()
            )
        except endpoint.EndpointError as error:
            reporter.failed(str(error))
            process.exit_now(1)
        except OSError as error:
            reporter.failed(process.explain(error))
            process.exit_now(1)

    def _reap(self) -> None:
        """Handles the end of the worker, if it has ended."""
        if not (self._worker and (end := self._worker.poll())):
            return
        outcome = self._learn(end)
        if outcome.registered:
            self._failures.end()
        if end.status != 0:
            if outcome.registered and self._lasted():
                self._earlier = Earlier()
            self._fail(outcome.failure or _death(end.status))
            return
        self._has_served = True
        self._earlier = self._after(outcome)
        self._start()

    def _learn(self, end: worker.End) -> Outcome:
        """What the worker, which has ended, has told."""
        self._worker = None
        self._runtime_directory.clear_mark()
        outcome = Outcome.read(end.told)
        if self._present and outcome.late:
            self._present = replace(self._present, late=self._present.late | outcome.late)
        if self._claims:
            self._claims = self._claims.with_more(outcome.claimed)
        return outcome

    def _after(self, outcome: Outcome) -> Earlier:
        """What the next worker must know about the kubelet of this one."""
        again = outcome.kubelet is not None and outcome.kubelet == self._earlier.kubelet
        if again and not self._lasted():
            return Earlier(outcome.kubelet, min(2 * self._earlier.seconds, failures.LONGEST_DELAY))
        return Earlier(outcome.kubelet, failures.FIRST_DELAY)

    def _lasted(self) -> bool:
        """Whether the worker, which has ended, lived so long that its kubelet is a good one."""
        return time.monotonic() - self._forked >= _LASTING_SECONDS

    def _fail(self, failure: str) -> None:
        """Logs a failure, unless it is the same as before, and plans the next attempt."""
        directory = paths.device_plugins(self._host.kubelet_dir)
        if self._has_served and os.access(directory, os.F_OK) and not os.access(directory, os.W_OK):
            # The service's mounts are of an earlier directory. Only systemd can set them up again.
            raise SandboxError(
                f"{directory} was replaced and cannot be written in the service's sandbox: ending,"
                " so that systemd sets it up again"
            )
        self._due = time.monotonic() + self._failures.report(failure)

    def _reload(self) -> None:
        """Reads the configuration again, and replaces the worker if it differs."""
        self._systemd.notify(reload.began())
        try:
            settings, claims = self._read()
        except (config.ConfigError, machine.MachineError) as error:
            reload.failed(error)
            self._systemd.notify("READY=1")
            return
        # CPUs that came online since then may be claimed, too, as in the worker.
        if settings == self._settings and self._claims and claims.includes(self._claims):
            reload.succeeded("nothing has changed")
            self._systemd.notify("READY=1")
            return
        self._stop_worker()
        self._adopt(settings, claims)
        # A failure with the new configuration is logged, even if it is the same as before.
        self._failures.end()
        self._earlier = Earlier()
        reload.succeeded("registering again")
        self._start()  # the new worker sends READY=1
        pages.release()

    def _stop_worker(self) -> None:
        """Ends the worker, and waits until it has ended."""
        if not self._worker:
            return
        self._worker.send(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while not (end := self._worker.poll()):
            seconds = deadline - time.monotonic()
            if seconds <= 0 or not signal.sigtimedwait({signal.SIGCHLD}, seconds):
                self._worker.send(signal.SIGKILL)
                deadline += _STOP_SECONDS
        self._learn(end)


def _death(status: int) -> str:
    """A sentence about a worker that has not said why it ended."""
    if status > 0:
        return f"the worker ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the worker was killed by {name}"
