"""`isolcpus-dp simulate`: runs the real daemon with a simulated kubelet and shows each step."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp import config
from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator import timing
from isolcpus_dp.simulator.kubelet import AdmissionError, Cause, Kubelet, Pod
from isolcpus_dp.simulator.machine import MadeUpMachine, Place, parse_shape
from isolcpus_dp.simulator.supervisor import Supervisor, Worker

# For each step; a host whose CPUs are emulated is slow.
_STEP_SECONDS = 60.0


class UsageError(Exception):
    """Invalid arguments; the message is one sentence."""


@dataclass(frozen=True)
class Stage:
    """The directory, machine and configuration of the simulation."""

    directory: Path  # temporary: the kubelet's directory, the daemon's log, a simulated machine
    sysfs: Path
    made_up: MadeUpMachine | None
    config_file: Path | None
    resource: str

    def kubelet(self, *static_pods: Pod) -> Kubelet:
        return Kubelet(
            self.directory / "kubelet",
            self.directory / "containers",
            static_pods,
            timing.WhenReported(at_latest=_STEP_SECONDS),
        )

    def daemon(self) -> Supervisor:
        command: list[str | Path] = [sys.executable, "-m", "isolcpus_dp", "serve"]
        command += ["--sysfs", self.sysfs, "--kubelet-dir", self.directory / "kubelet"]
        command += ["--config", self.config_file] if self.config_file else []
        return Supervisor(command, self.directory)


def run(sysfs: Path, config_file: Path | None, shape: str | None, isolated: str | None) -> bool:
    """Runs the simulation and prints its steps on stdout; returns False if a step failed.

    `shape` is a simulated machine such as 2x8x2 with the isolated CPUs `isolated`; without it, the
    machine under `sysfs` is used. Raises UsageError, machine.MachineError and config.ConfigError.
    """
    logging.getLogger("kubelet").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="isolcpus-dp-") as directory:
        made_up = _made_up(Path(directory) / "sys", shape, isolated)
        root = made_up.root if made_up else sysfs
        present = machine.read(root)
        resource = config.load(config_file, present.last).pools[0].resource_name
        stage = Stage(Path(directory), root, made_up, config_file, resource)
        _tell_machine(shape or f"this host, as {sysfs} shows it", present)
        try:
            asyncio.run(_play(stage))
        except (asyncio.TimeoutError, AdmissionError) as error:
            _tell("FAILED", f"{error}" or f"a step took longer than {_STEP_SECONDS:.0f} s")
            print("The daemon's log:", stage.daemon().log.read_text(), sep="\n")
            return False
        finally:
            # gRPC's remaining objects are freed now: Python 3.14 cannot free them while it ends.
            gc.collect()
    return True


def _made_up(root: Path, shape: str | None, isolated: str | None) -> MadeUpMachine | None:
    if shape is None:
        if isolated is not None:
            raise UsageError("--isolated needs --machine: a host's isolated CPUs are set at boot")
        return None
    try:
        places = parse_shape(shape)
        last = len(places) - 1
        cpus = cpulist.parse_configured(isolated, last) if isolated else _all_but_first(places)
    except ValueError as error:
        given = f"--machine {shape}" + (f" --isolated {isolated}" if isolated else "")
        raise UsageError(f"{given}: {error}") from error
    return MadeUpMachine(root, places, cpus)


def _all_but_first(places: Sequence[Place]) -> frozenset[int]:
    """All CPUs except the first core of each package."""
    return frozenset(place.cpu for place in places if place.core > 0)


async def _play(stage: Stage) -> None:
    paths.device_plugins(stage.directory / "kubelet").mkdir(parents=True)
    async with stage.daemon().running() as daemon:
        ready = await _ready(daemon)
        seconds = ready - daemon.current.started
        _tell("daemon", "is loaded, serves and waits for a kubelet", seconds)
        kubelet = stage.kubelet()
        await kubelet.start()
        _tell("kubelet", "starts: removes all plugins' sockets, binds its own")
        await _taken_in(stage, kubelet)
        devices = kubelet.allocatable(stage.resource)
        if devices < 5:  # too few for three pods, two of which need two devices
            _tell("", f"{devices} devices are too few for the pods; use --machine")
            await kubelet.stop()
            return
        await _admit(stage, kubelet, "forwarder", devices // 3)
        await _admit(stage, kubelet, "controller", 2)
        if stage.made_up:
            await _hotplug(stage, kubelet, stage.made_up)
        await _restart_kubelet(stage, kubelet, daemon)
    _tell("end", "daemon and kubelet are stopped, nothing is left behind")


async def _taken_in(stage: Stage, kubelet: Kubelet) -> None:
    """Waits until the kubelet has the plugin's devices, and prints the time it took."""
    registration = await kubelet.registration(stage.resource, _STEP_SECONDS)
    devices = len(kubelet.plugins[stage.resource].devices)
    _tell("kubelet", f"has {devices} devices of {stage.resource}", registration.seconds)


async def _admit(stage: Stage, kubelet: Kubelet, name: str, size: int) -> None:
    start = time.monotonic()
    await kubelet.admit(Pod(name, {stage.resource: size}))
    _tell_pod(stage, kubelet, name, time.monotonic() - start)


async def _hotplug(stage: Stage, kubelet: Kubelet, made_up: MadeUpMachine) -> None:
    """Takes a CPU offline and brings it online again."""
    plugin = kubelet.plugins[stage.resource]
    cpu = min(map(int, plugin.devices))

    async def until(change: Callable[[int], None], health: str) -> float:
        start = time.monotonic()
        change(cpu)
        await kubelet.until(lambda: plugin.devices[str(cpu)].health == health, _STEP_SECONDS)
        return time.monotonic() - start

    _tell("kubelet", f"sees CPU {cpu} offline", await until(made_up.set_offline, "Unhealthy"))
    _tell("kubelet", f"sees CPU {cpu} online", await until(made_up.set_online, "Healthy"))


async def _ready(daemon: Supervisor, other_than: Worker | None = None) -> float:
    """Waits for a worker that is ready; the time.monotonic() at which it was."""
    worker = await daemon.worker(
        lambda worker: worker.ready is not None, other_than, seconds=_STEP_SECONDS
    )
    assert worker.ready is not None
    return worker.ready


async def _restart_kubelet(stage: Stage, kubelet: Kubelet, daemon: Supervisor) -> None:
    """Restarts the kubelet, with a static pod that needs devices at once."""
    before = daemon.workers[-1]
    await kubelet.stop()
    stopped = time.monotonic()
    _tell("kubelet", "stops; its socket file remains, no process listens on it")
    ready = await _ready(daemon, before)
    _tell("daemon", "its worker ended with it; the next one is waiting", ready - stopped)
    kubelet = stage.kubelet(Pod("late-riser", {stage.resource: 2}))
    await kubelet.start()
    try:
        _tell("kubelet", "starts again, with a static pod that asks for two CPUs")
        await _taken_in(stage, kubelet)
        _tell(
            "", f"  kubelet 1.36.2 would admit the pod after {timing.ADMISSION_IDLE} (idle host),"
        )
        _tell("", f"  {timing.ADMISSION_BUSY} (busy host)")
        await kubelet.until(lambda: "late-riser" in kubelet.pods, 2 * _STEP_SECONDS)
        if kubelet.pods["late-riser"] != "Running":
            raise AdmissionError(kubelet.pods["late-riser"], Cause.OTHER)
        _tell_pod(stage, kubelet, "late-riser")
    finally:
        await kubelet.stop()


def _tell_machine(name: str, present: machine.Machine) -> None:
    _tell("machine", name)
    _tell("", f"isolated {cpulist.render(present.isolated) or '(no CPU)'}")
    nodes = {cpu.node for cpu in present.cpus.values()}
    for node in sorted(nodes, key=lambda node: -1 if node is None else node):
        cpus = [cpu.cpu for cpu in present.cpus.values() if cpu.node == node]
        _tell("", f"NUMA node {node}: CPUs {cpulist.render(cpus)}")


def _tell_pod(stage: Stage, kubelet: Kubelet, name: str, seconds: float | None = None) -> None:
    present = machine.read(stage.sysfs)
    cpus = cpulist.parse(kubelet.answers(name)[stage.resource].annotations[stage.resource])
    nodes = sorted({str(present.cpus[cpu].node) for cpu in cpus})
    cores = [cpulist.render(core) for core in {present.cpus[cpu].siblings & cpus for cpu in cpus}]
    _tell("pod", f"{name} owns CPUs {cpulist.render(cpus)}", seconds)
    _tell("", f"  on NUMA node {', '.join(nodes)}, core by core: {' '.join(sorted(cores))}")


def _tell(who: str, what: str, seconds: float | None = None) -> None:
    """Prints a step and the time it took."""
    time_taken = "" if seconds is None else f"{seconds * 1000:8.1f} ms"
    print(f"{who:>8}  {what:<66}{time_taken}".rstrip(), flush=True)
