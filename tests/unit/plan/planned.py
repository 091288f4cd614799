"""A host in a directory that is as its plan says: its commands were run, and it was booted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.plan import differ, parts, survey, wish, write
from isolcpus_dp.plan.parts import Plan
from isolcpus_dp.simulator.machine import MadeUpMachine, parse_shape
from tests.unit.check.conftest import MadeUpHost

# With CPUs 1-3 isolated: by path, what the kernel, TuneD and systemd say.
KERNEL = {
    "proc/sys/kernel/timer_migration": "1",
    "proc/sys/kernel/watchdog_cpumask": "0",
    "proc/sys/kernel/numa_balancing": "0",
    "proc/irq/default_smp_affinity": "1",
    "sys/devices/virtual/workqueue/cpumask": "1",
    "sys/devices/system/cpu/isolated": "1-3",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu",
    "sys/fs/cgroup/init.scope/cpuset.cpus": "0",
    "sys/fs/cgroup/system.slice/cpuset.cpus": "0",
    "sys/fs/cgroup/user.slice/cpuset.cpus": "0",
    "sys/fs/cgroup/kubepods.slice/cgroup.events": "populated 1",
    **{f"sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us": "10" for cpu in (1, 2)},
    **{f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor": "performance" for cpu in (1,)},
    # The housekeeping CPU is left alone.
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave",
}
TUNED = {
    "usr/sbin/tuned": "",
    "etc/tuned/active_profile": "throughput-performance isolcpus-dp",
    "etc/systemd/system/multi-user.target.wants/tuned.service": "",
}
ARGUMENTS = (
    "root=/dev/vda1 ro isolcpus=nohz,domain,managed_irq,1-3 nohz_full=1-3 rcu_nocbs=1-3"
    " irqaffinity=0 transparent_hugepage=madvise quiet"
)
CONTAINERD = 'version = 2\nimports = [\n  "/etc/containerd/conf.d/*.toml",\n]\n'


class PlannedHost:
    """A host without a kubelet and a runtime; its programs are those in bin/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.host = MadeUpHost(MadeUpMachine(root / "sys", parse_shape("1x4x1"), {1, 2, 3}), root)
        self.put({**KERNEL, "proc/cmdline": ARGUMENTS, "os-release": "ID=debian\nVERSION_ID=12"})
        (root / "bin").mkdir()
        # Absolute paths that the kubelet names are inside of the directory as well.
        inside = root / str(root).lstrip("/")
        inside.parent.mkdir(parents=True)
        inside.symlink_to(root)

    def put(self, texts: Mapping[str, str]) -> None:
        """Writes files; by path."""
        for path, text in texts.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(f"{text}\n")

    def program(self, name: str, prints: str) -> None:
        self.put({f"bin/{name}": f"#!/bin/sh\necho '{prints}'"})
        (self.root / "bin" / name).chmod(0o755)

    def kubelet(self, *flags: str, version: str = "1.36.0") -> None:
        """A running kubelet with a configuration file, and no drop-in so far."""
        self.program("kubelet", f"Kubernetes v{version}")
        self.put({"var/lib/kubelet/config.yaml": "reservedSystemCPUs: '0'"})
        words = ("/usr/bin/kubelet", f"--config={self.root}/var/lib/kubelet/config.yaml", *flags)
        self.host.process(50, "kubelet", "0")
        self.host.proc("50/cmdline", "\0".join(words) + "\0")

    @property
    def drop_ins(self) -> Path:
        return self.root / "etc/kubernetes/kubelet.conf.d"

    def plan(self) -> Plan:
        read = machine.read(self.root / "sys")
        known = survey.of_host(read, self.root / "os-release", root=self.root)
        return parts.make(wish.apply(read, wish.Wish())[0], known, Config())

    def write(self) -> None:
        plan = self.plan()
        write.write(plan.files, self.root, plan.former)

    def differences(self) -> list[str]:
        return differ.differences(self.plan(), self.root)
