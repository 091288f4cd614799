"""How a running host differs from its plan: its files, its kernel, systemd and TuneD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp.host import files
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.plan import survey, tuning

from .planned import TUNED, PlannedHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlannedHost:
    monkeypatch.setattr(survey, "PROGRAMS", str(tmp_path / "bin"))
    planned = PlannedHost(tmp_path)
    planned.write()
    return planned


@pytest.fixture
def tuned(host: PlannedHost) -> PlannedHost:
    host.put(TUNED)
    host.write()
    return host


def test_host_as_planned_has_no_differences(host: PlannedHost) -> None:
    assert host.differences() == []


def test_host_with_tuned_as_planned_has_no_differences(tuned: PlannedHost) -> None:
    assert tuned.differences() == []


def test_differences_of_files_are_named(host: PlannedHost) -> None:
    root = host.root
    (root / "etc/systemd/system/init.scope.d/90-isolcpus-dp.conf").unlink()
    host.put({"etc/systemd/system/user.slice.d/90-isolcpus-dp.conf": "[Slice]"})
    changed = root / "etc/default/grub.d/90-isolcpus-dp.cfg"
    changed.write_text(changed.read_text().replace("1-3", "1-2"))
    former = "etc/tuned/isolcpus-dp/tuned.conf"
    host.put({former: "# Written by isolcpus-dp plan.\n[main]"})
    assert host.differences() == [
        "/etc/default/grub.d/90-isolcpus-dp.cfg differs from the plan",
        "/etc/systemd/system/init.scope.d/90-isolcpus-dp.conf is missing",
        f"{root}/etc/systemd/system/user.slice.d/90-isolcpus-dp.conf exists and was not written by"
        " isolcpus-dp plan, so it is not replaced: move it away first",
        "/etc/tuned/isolcpus-dp/tuned.conf is left from an earlier plan",
    ]


def test_plan_that_is_written_again_leaves_no_difference(host: PlannedHost) -> None:
    """TuneD was installed, and removed."""
    host.put(TUNED)
    found = host.differences()
    assert "/etc/tuned/isolcpus-dp/tuned.conf is missing" in found
    assert "/etc/sysctl.d/90-isolcpus-dp.conf is left from an earlier plan" in found
    host.write()
    assert host.differences() == []
    (host.root / "usr/sbin/tuned").unlink()
    assert "/etc/tuned/isolcpus-dp/tuned.conf is left from an earlier plan" in host.differences()
    host.write()
    assert host.differences() == []


def test_kernel_that_was_booted_otherwise_is_reported(host: PlannedHost) -> None:
    host.put(
        {
            "proc/cmdline": "nohz_full=1-3 rcu_nocbs=1-3 irqaffinity=0 transparent_hugepage=never",
            "sys/devices/system/cpu/isolated": "",
            "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never",
        }
    )
    assert host.differences() == [
        # The drop-in keeps huge pages as they are.
        "/etc/default/grub.d/90-isolcpus-dp.cfg differs from the plan",
        "the kernel command line lacks isolcpus=nohz,domain,managed_irq,1-3",
        "the kernel isolates CPU (none), and not 1-3",
        "/sys/kernel/mm/transparent_hugepage/enabled is always: if the kernel was booted with"
        " transparent_hugepage=madvise, remove what sets it later, such as another profile of"
        " TuneD",
    ]


@pytest.mark.parametrize(
    ("present", "sentence"),
    [
        (
            {"sys/fs/cgroup/system.slice/cpuset.cpus": ""},
            "system.slice may use all CPUs instead of CPU 0 only",
        ),
        (
            {"sys/fs/cgroup/user.slice/cpuset.cpus": "0-3"},
            "user.slice may use CPU 0-3 instead of CPU 0 only",
        ),
        # Without the controller cpuset.
        (
            {"sys/fs/cgroup/machine.slice/cgroup.events": "populated 1"},
            "machine.slice may use all CPUs instead of CPU 0 only",
        ),
        (
            {"sys/fs/cgroup/own.slice/cgroup.events": "populated 1\nfrozen 0"},
            "own.slice may use all CPUs: unless containers run in it, give it a file as that of"
            " system.slice",
        ),
        ({"sys/fs/cgroup/own.slice/cgroup.events": "populated 0"}, ""),
        (
            {
                "sys/fs/cgroup/own.slice/cgroup.events": "populated 1",
                "sys/fs/cgroup/own.slice/cpuset.cpus": "2-3",
            },
            "",
        ),
        (
            {
                "sys/fs/cgroup/own.slice/cgroup.events": "populated 1",
                "sys/fs/cgroup/own.slice/own-kubepods.slice/cgroup.events": "populated 1",
            },
            "",
        ),
    ],
)
def test_cpus_of_units_are_compared(
    host: PlannedHost, present: Mapping[str, str], sentence: str
) -> None:
    host.put(present)
    assert host.differences() == ([sentence] if sentence else [])


_SYSCTL = "sysctl -p /etc/sysctl.d/90-isolcpus-dp.conf"
_TMPFILES = "systemd-tmpfiles --create /etc/tmpfiles.d/isolcpus-dp.conf"
_CPU = "sys/devices/system/cpu/cpu"


@pytest.mark.parametrize(
    ("present", "sentence"),
    [
        (
            {"proc/sys/kernel/timer_migration": "0"},
            f"/proc/sys/kernel/timer_migration is 0, and not 1: reboot, or run {_SYSCTL}",
        ),
        (
            {"proc/sys/kernel/watchdog_cpumask": "0-3"},
            f"/proc/sys/kernel/watchdog_cpumask is 0-3, and not 0: reboot, or run {_SYSCTL}",
        ),
        (
            {"sys/devices/virtual/workqueue/cpumask": "f"},
            f"/sys/devices/virtual/workqueue/cpumask is f, and not 1: reboot, or run {_TMPFILES}",
        ),
        # The same CPUs, as a kernel for many CPUs prints them; CPU 4 does not exist.
        ({"proc/irq/default_smp_affinity": "00000000,00000001"}, ""),
        ({"proc/irq/default_smp_affinity": "11"}, ""),
        (
            {
                f"{_CPU}1/cpufreq/scaling_governor": "powersave",
                f"{_CPU}3/cpufreq/scaling_governor": "powersave",
            },
            f"scaling_governor of CPU 1,3 is powersave, and not performance: run {_TMPFILES}",
        ),
        (
            {f"{_CPU}2/power/pm_qos_resume_latency_us": "0"},
            f"pm_qos_resume_latency_us of CPU 2 is 0, and not 10: reboot, or run {_TMPFILES}",
        ),
    ],
)
def test_settings_are_compared_as_what_they_mean(
    host: PlannedHost, present: Mapping[str, str], sentence: str
) -> None:
    host.put(present)
    assert host.differences() == ([sentence] if sentence else [])


def test_setting_that_the_kernel_lacks_is_no_difference(host: PlannedHost) -> None:
    for path in ("sys/kernel/numa_balancing", "sys/kernel/watchdog_cpumask"):
        (host.root / "proc" / path).unlink()
    assert host.differences() == []


def test_settings_of_offline_cpus_are_not_compared(host: PlannedHost) -> None:
    host.put({f"{_CPU}2/power/pm_qos_resume_latency_us": "0"})
    plan = host.plan()
    machine = plan.goal.machine
    goal = replace(plan.goal, machine=replace(machine, online=machine.online - {2}))
    assert list(tuning.differences(goal, plan.known, host.root)) == []


@pytest.mark.parametrize(
    ("active", "shown"), [("throughput-performance", "throughput-performance"), ("", "(none)")]
)
def test_other_profile_of_tuned_is_reported(tuned: PlannedHost, active: str, shown: str) -> None:
    tuned.put({"etc/tuned/active_profile": active})
    assert tuned.differences() == [
        f"TuneD's profile is {shown}, and not isolcpus-dp: run tuned-adm profile isolcpus-dp"
    ]


def test_tuned_that_is_not_enabled_is_reported(tuned: PlannedHost) -> None:
    link = tuned.root / "etc/systemd/system/multi-user.target.wants/tuned.service"
    link.unlink()
    assert tuned.differences() == [
        "tuned.service is not enabled: run systemctl enable --now tuned.service"
    ]
    link.symlink_to("/lib/systemd/system/tuned.service")  # is not below the directory
    assert tuned.differences() == []
    link.unlink()
    tuned.put({"usr/lib/systemd/system/multi-user.target.wants/tuned.service": ""})
    assert tuned.differences() == []


def test_settings_are_tuneds_where_it_is_installed(tuned: PlannedHost) -> None:
    tuned.put({"proc/sys/kernel/numa_balancing": "1"})
    assert tuned.differences() == [
        "/proc/sys/kernel/numa_balancing is 1, and not 0: reboot, or run systemctl restart"
        " tuned.service"
    ]


def test_what_cannot_be_read_is_said(host: PlannedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    text = files.text

    def hidden(path: Path | str, most: int = 1 << 20) -> str:
        if str(path).endswith("numa_balancing"):
            raise Unseen("cannot read numa_balancing")
        return text(path, most)

    monkeypatch.setattr(files, "text", hidden)
    host.put({"proc/sys/kernel/timer_migration": "0"})
    assert host.differences() == [
        f"/proc/sys/kernel/timer_migration is 0, and not 1: reboot, or run {_SYSCTL}",
        "cannot read numa_balancing",
    ]
