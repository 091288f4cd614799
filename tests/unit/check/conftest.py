"""Builds a host in a directory: /sys, /proc, the kubelet's files, containers and owners."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config
from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.kubelet.rancher import Places
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.host import Host, Roots
from isolcpus_dp.report.snapshot import Owner, Snapshot
from isolcpus_dp.simulator.machine import MadeUpMachine
from tests.unit.conftest import MakeUp

# PF_NO_SETAFFINITY: the kernel has bound the thread.
BOUND = 0x04000000


class MadeUpHost:
    """A host with only its machine and two processes; a test adds what it needs."""

    def __init__(self, tree: MadeUpMachine, directory: Path) -> None:
        self.tree = tree
        self.directory = directory
        self.config = Config()
        self.owners: list[Owner] = []
        self.listed: set[str] = set()  # namespace/pod/container, without those of the owners
        self.unseen: tuple[str, ...] = ()
        self.units: dict[str, Mapping[str, str]] = {}
        self.process(1, "systemd", "0-1,4-5", parent=0)
        self.process(2, "kthreadd", "0-1,4-5", parent=0)

    def sys(self, name: str, text: str) -> None:
        self._write(self.tree.root / name, text)

    def proc(self, name: str, text: str) -> None:
        self._write(self.directory / "proc" / name, text)

    def kubelet(self, name: str, text: str) -> None:
        self._write(self.directory / "kubelet" / name, text)

    def process(
        self,
        pid: int,
        name: str,
        allowed: str,
        *,
        parent: int = 1,
        ran_on: int = 0,
        flags: int = 0,
        uids: str = "0 0 0 0",
        pids: str = "",
    ) -> None:
        """A process with one thread.

        `uids` are the real, effective, saved and file system user IDs, `pids` its PIDs in the PID
        namespaces that it is in.
        """
        self._task(str(pid), name, allowed, parent, 1, uids, pids or str(pid))
        self.ran(str(pid), ran_on, flags)

    def kernel_thread(
        self, pid: int, name: str, allowed: str, *, ran_on: int = 0, flags: int = 0
    ) -> None:
        self.process(pid, name, allowed, parent=2, ran_on=ran_on, flags=flags)

    def second_thread(self, pid: int, name: str, allowed: str, *, ran_on: int = 0) -> None:
        """A process with two threads; the first may run on the housekeeping CPUs only."""
        self._task(str(pid), name, "0-1,4-5", 1, 2)
        self.ran(str(pid), 0, 0)
        for tid, cpus, cpu in ((pid, "0-1,4-5", 0), (pid + 1, allowed, ran_on)):
            self._task(f"{pid}/task/{tid}", name, cpus, 1, 2)
            self.ran(f"{pid}/task/{tid}", cpu, 0)

    def ran(self, task: str, cpu: int, flags: int) -> None:
        numbers = ["1", "1", "1", "0", "-1", str(flags), *["0"] * 29, str(cpu), "0", "0"]
        self.proc(f"{task}/stat", f"{Path(task).name} (a ) name) S {' '.join(numbers)}")

    def contains(self, pid: int, letter: str, name: str | None) -> None:
        """Puts a process in a container; without a name, the kubelet has no log link for it."""
        path = f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{letter * 64}.scope"
        self.proc(f"{pid}/cgroup", f"0::{path}")
        if name:
            namespace, pod, container = name.split("/")
            link = f"{pod}_{namespace}_{container}-{letter * 64}.log"
            self._write(self.directory / "containers" / link, "")

    def owns(self, name: str, *cpus: int) -> None:
        namespace, pod, container = name.split("/")
        ids = tuple(map(str, cpus))
        allocation = Allocation(namespace, pod, container, "windriver.com/isolcpus", ids)
        self.owners.append(Owner(allocation, frozenset(cpus)))

    def hide_processes(self) -> None:
        """As with hidepid= or in a PID namespace: kthreadd is not shown."""
        shutil.rmtree(self.directory / "proc/2")

    def irq(self, number: int, device: str, effective: str, allowed: str = "0-7") -> None:
        self.proc(f"irq/{number}/effective_affinity_list", effective)
        self.proc(f"irq/{number}/smp_affinity_list", allowed)
        if device:
            (self.directory / "proc/irq" / str(number) / device).mkdir()

    def host(self, interval: float = 0.0) -> Host:
        present = machine.read(self.tree.root)
        pools = pool.make(present, self.config)
        containers = frozenset(self.listed | {str(owner.allocation) for owner in self.owners})
        seen = Snapshot(present, self.config, pools, tuple(self.owners), self.unseen, containers)
        return Host(self.roots(), seen, interval)

    def roots(self) -> Roots:
        return Roots(
            sysfs=self.tree.root,
            proc=self.directory / "proc",
            kubelet_dir=self.directory / "kubelet",
            rancher=Places(self.directory / "etc-rancher", self.directory / "lib-rancher"),
            manifests=self.directory / "manifests",
            container_logs=self.directory / "containers",
            nri_socket=Path("/var/run/nri/nri.sock"),
            latency=self.directory / "cpu_dma_latency",
            package=self.directory / "package",
            run=self.directory / "run",
            unit=self._unit,
        )

    def _unit(self, name: str) -> Mapping[str, str]:
        if name not in self.units:
            raise files.Unseen("systemd cannot be asked")
        return self.units[name]

    def _task(
        self,
        task: str,
        name: str,
        allowed: str,
        parent: int,
        threads: int,
        uids: str = "0 0 0 0",
        pids: str = "1",
    ) -> None:
        cpulist.parse(allowed)
        self.proc(
            f"{task}/status",
            f"Name:\t{name}\nState:\tS (sleeping)\nPPid:\t{parent}\nUid:\t{uids}\n"
            f"NSpid:\t{pids}\nThreads:\t{threads}\n"
            f"Cpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nMems_allowed_list:\t0",
        )

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def made_up(make_up: MakeUp, tmp_path: Path) -> MadeUpHost:
    """Four cores with two threads each; cores 2,6 and 3,7 are isolated."""
    return MadeUpHost(make_up("1x4x2", {2, 3, 6, 7}), tmp_path)
