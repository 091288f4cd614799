"""The life of the pinning daemon: waits for a container runtime, serves it, and waits again.

It runs until it is stopped; runtimes may end and start, and limits of the host may be reached.
Every connection begins with Synchronize, so no container is missed in between. When the host's CPUs
or the configuration change, a new connection updates all containers.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp import config
from isolcpus_dp.host import cpulist, directories, machine, sockets
from isolcpus_dp.host.hotplug import MachineWatch
from isolcpus_dp.host.sockets import SocketWatch
from isolcpus_dp.nri import cgroup, pinning
from isolcpus_dp.nri.outcome import Outcome
from isolcpus_dp.nri.requested import Requested
from isolcpus_dp.nri.session import Session
from isolcpus_dp.nri.unconfirmed import Unconfirmed
from isolcpus_dp.service import notify, process, reload
from isolcpus_dp.service.events import Event, emit
from isolcpus_dp.service.failures import Failures

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Host:
    """The paths that the daemon uses."""

    sysfs: Path
    nri_socket: Path
    # For the fingerprint of the configuration; systemd provides it.
    runtime_dir: Path | None

    @property
    def cgroups(self) -> Path:
        """Where cgroups are mounted."""
        return self.sysfs / "fs" / "cgroup"

    def rules(self, present: machine.Machine, settings: config.Config) -> pinning.Rules:
        """The rules for containers. Raises MachineError if a file cannot be read."""
        nameable = cgroup.nameable(self.cgroups, present)
        return pinning.rules(present, settings, nameable, machine.nodes_with_memory(self.sysfs))


def serve(host: Host, config_file: Path | None) -> None:
    """Runs the daemon until SIGTERM or SIGINT. SIGHUP makes it read its configuration again.

    A machine that cannot be read is read again until it can be. Raises ConfigError, with a sentence
    for the operator, or OSError.
    """
    failures = Failures(notify.Systemd())
    while True:
        try:
            present = machine.read(host.sysfs)
            settings = config.load(config_file, present.last)
            rules = host.rules(present, settings)
            break
        except machine.MachineError as error:
            time.sleep(failures.report(str(error)))
    gc.freeze()  # so that a collection looks only at what connections have left
    process.run(lambda: Daemon(host, config_file, settings, present, rules).live())


class Daemon:
    """The daemon while its event loop runs."""

    def __init__(
        self,
        host: Host,
        config_file: Path | None,
        settings: config.Config,
        present: machine.Machine,
        rules: pinning.Rules,
    ) -> None:
        self._host = host
        self._config_file = config_file
        self._settings = settings
        self._published = reload.Published(host.runtime_dir)
        self._rules = rules
        self._systemd = notify.Systemd()
        self._failures = Failures(self._systemd)
        self._machine = MachineWatch(
            host.sysfs, present, self._machine_changed, self._machine_unreadable
        )
        self._unconfirmed = Unconfirmed()
        self._requested = Requested()
        self._session: Session | None = None

    async def live(self) -> None:
        self._systemd.feed_watchdog()
        with self._machine:
            try:
                if await process.until_signal(self._serve_runtimes()):
                    emit(log, Event.STOPPED, "asked to stop")
            finally:
                self._published.remove()
                reload.hold()  # the event loop restores the default action when it is closed
                self._systemd.notify("STOPPING=1")

    async def _serve_runtimes(self) -> None:
        emit(
            log, Event.STARTED, "isolated CPU %s: %s",
            cpulist.render(self._rules.isolated) or "(none)",
            "only owners are pinned" if not self._settings.pinning.keep_others_off
            else "other containers are refused" if self._refuses_others()
            else "other containers are kept off", cpus=self._rules.isolated,
        )  # fmt: skip
        self._report_lack()
        directory = self._host.nri_socket.parent
        self._tell_waiting()
        self._published.write(config.fingerprint(self._settings))
        self._systemd.notify("READY=1")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        reload.release()
        while True:
            try:
                await directories.present(directory)
                with SocketWatch(self._host.nri_socket, self._obstructed) as watch:
                    await self._serve_sessions(watch)
            except sockets.Gone as gone:
                emit(log, Event.RUNTIME_LEFT, "%s", gone)
            except OSError as error:
                await asyncio.sleep(self._failures.report(process.explain(error)))

    async def _serve_sessions(self, watch: SocketWatch) -> None:
        """Runs sessions; outcome.py describes when the next one starts. Raises Gone."""
        serving: Session | None = None  # answers the runtime until the next one is synchronized
        last, times = Outcome.ABSENT, 0
        try:
            while True:
                identity = sockets.identify(self._host.nri_socket)
                self._session = Session(
                    self._host.nri_socket,
                    self._host.cgroups,
                    self._rules,
                    self._unconfirmed,
                    self._requested,
                    self._report_connected,
                    serving,
                )
                outcome = await self._session.run()
                serving, self._session = self._session.serving, None
                last, times = outcome, times + 1 if outcome is last else 1
                if outcome is not Outcome.ABSENT:
                    gc.collect()  # Python does it by itself only after hundreds of connections
                if outcome is Outcome.ABSENT:
                    await watch.next_attempt()
                elif outcome is not Outcome.OUTDATED:
                    self._tell_waiting()
                    await watch.replaced(identity, outcome.retry_seconds(times))
        finally:
            if serving:
                serving.close()

    def _reload(self) -> None:
        """Reads the configuration again, and applies it if it is right."""
        self._systemd.notify(reload.began())
        present = self._machine.machine
        try:
            settings = config.load(self._config_file, present.last)
            rules = self._host.rules(present, settings)
        except (config.ConfigError, machine.MachineError) as error:
            reload.failed(error)
        else:
            self._settings = settings
            self._published.write(config.fingerprint(settings))
            if rules == self._rules:
                reload.succeeded("nothing changes for containers")
            else:
                reload.succeeded("updating all containers")
                self._apply(rules)
        self._systemd.notify("READY=1")

    def _apply(self, rules: pinning.Rules) -> None:
        """Outdates the session: a new one updates all containers."""
        self._rules = rules
        self._report_lack()
        if self._session:
            self._session.outdate(rules)

    def _report_lack(self) -> None:
        """Logs that containers which own no CPUs are refused, if they are."""
        if self._refuses_others():
            emit(
                log, Event.DEGRADED,
                "%s; until then, such containers are not created, and existing ones keep the"
                " CPUs that they have", pinning.lack_of_housekeeping(self._rules),
            )  # fmt: skip

    def _refuses_others(self) -> bool:
        keeps_off = self._rules.isolated and self._rules.pinning.keep_others_off
        return bool(keeps_off) and not self._rules.housekeeping

    def _machine_changed(self, present: machine.Machine) -> None:
        """Applies the rules if they have changed. Raises MachineError."""
        rules = self._host.rules(present, self._settings)
        if rules == self._rules:
            return
        emit(
            log, Event.CPUS_CHANGED, "online CPUs are now %s; updating all containers",
            cpulist.render(rules.online), cpus=rules.online,
        )  # fmt: skip
        self._apply(rules)

    def _machine_unreadable(self, error: machine.MachineError) -> None:
        emit(log, Event.DEGRADED, "could not read the CPUs: %s; continuing as before", error)

    def _report_connected(self, runtime: str) -> None:
        self._failures.end()
        isolated = cpulist.render(self._rules.isolated) or "(none)"
        status = f"STATUS=Connected to {runtime}, isolated CPU {isolated}"
        if self._refuses_others():
            status += "; no housekeeping CPU is left, so other containers are refused"
        self._systemd.notify(status)

    def _obstructed(self, reason: str) -> None:
        emit(log, Event.DEGRADED, "%s; waiting for a container runtime", reason)
        self._systemd.notify(f"STATUS=Waiting for a container runtime: {reason}")

    def _tell_waiting(self) -> None:
        path = self._host.nri_socket
        emit(log, Event.WAITING, "waiting for a container runtime at %s", path)
        self._systemd.notify(f"STATUS=Waiting for a container runtime with NRI at {path}")
