"""The plan's files for host tuning, with TuneD and without."""

from __future__ import annotations

import configparser
import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolcpus_dp.host import machine
from isolcpus_dp.host.cpulist import parse_mask
from isolcpus_dp.plan import tmpfiles, tuning
from isolcpus_dp.plan.part import Goal, Part, Target
from tests.unit.conftest import MakeUp, without_smt

WITH = Target("el", (6, 12), tuned=True)
WITHOUT = Target("el", (6, 12), tuned=False)

IRQBALANCE = """\
# Written by isolcpus-dp plan, which replaces this file; see isolcpus-dp(8).
# Without these variables, irqbalance skips the isolated CPUs.
[Service]
UnsetEnvironment=IRQBALANCE_BANNED_CPUS IRQBALANCE_BANNED_CPULIST
"""

# A core of each package stays.
LARGE_PROFILE = """\
# Written by isolcpus-dp plan, which replaces this file; see isolcpus-dp(8).
[main]
summary=Quiet isolated CPUs: 1-15,17-31,33-47,49-63

[variables]
isolated=1-15,17-31,33-47,49-63

[sysctl]
# Timers that isolated CPUs start may run on housekeeping CPUs.
kernel.timer_migration=1
# The kernel's watchdog does not interrupt isolated CPUs.
kernel.watchdog_cpumask=0,16,32,48
# No page faults to see which memory a process uses.
kernel.numa_balancing=0

[sysfs]
# Unbound kernel work runs on housekeeping CPUs.
/sys/devices/virtual/workqueue/cpumask=10001,00010001

[isolated_cpus]
type=cpu
priority=-1
devices=${f:cpulist2devs:${isolated}}
# Isolated CPUs do not change their frequency.
governor=performance
# Isolated CPUs enter no idle state that takes longer to leave, in microseconds.
pm_qos_resume_latency_us=10

[scheduler]
# New device interrupts fire on housekeeping CPUs. Existing ones are moved there.
# The list must not have offline CPUs: TuneD would then move nothing.
isolated_cores=${f:cpulist_online:${isolated}}
# Only kernel threads are moved, which are in the root cgroup: never owners.
cgroup_ps_blacklist=:/[^,]
# Once, when the profile is applied; new processes are not watched.
runtime=0
"""
LARGE_TMPFILES = """\
# Written by isolcpus-dp plan, which replaces this file; see isolcpus-dp(8).

# New device interrupts fire on housekeeping CPUs.
w- /proc/irq/default_smp_affinity - - - - 10001,00010001

# Unbound kernel work runs on housekeeping CPUs.
w- /sys/devices/virtual/workqueue/cpumask - - - - 10001,00010001

# Isolated CPUs do not change their frequency.
w- /sys/devices/system/cpu/cpu[1-9]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu1[0-5]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu1[7-9]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu2[0-9]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu3[0-1]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu3[3-9]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu4[0-7]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu49/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu5[0-9]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu6[0-3]/cpufreq/scaling_governor - - - - performance

# Isolated CPUs enter no idle state that takes longer to leave, in microseconds.
w- /sys/devices/system/cpu/cpu[1-9]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu1[0-5]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu1[7-9]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu2[0-9]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu3[0-1]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu3[3-9]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu4[0-7]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu49/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu5[0-9]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu6[0-3]/power/pm_qos_resume_latency_us - - - - 10
"""
LARGE_SYSCTL = """\
# Written by isolcpus-dp plan, which replaces this file; see isolcpus-dp(8).

# Timers that isolated CPUs start may run on housekeeping CPUs.
kernel.timer_migration = 1

# The kernel's watchdog does not interrupt isolated CPUs.
kernel.watchdog_cpumask = 0,16,32,48

# No page faults to see which memory a process uses.
kernel.numa_balancing = 0
"""

# SMT is off on 1x4x2: the CPUs 4 to 7 are offline, and are isolated as well, should they come.
SMALL_TMPFILES = """\
# Written by isolcpus-dp plan, which replaces this file; see isolcpus-dp(8).

# New device interrupts fire on housekeeping CPUs.
w- /proc/irq/default_smp_affinity - - - - 11

# Unbound kernel work runs on housekeeping CPUs.
w- /sys/devices/virtual/workqueue/cpumask - - - - 11

# Isolated CPUs do not change their frequency.
w- /sys/devices/system/cpu/cpu[1-3]/cpufreq/scaling_governor - - - - performance
w- /sys/devices/system/cpu/cpu[5-7]/cpufreq/scaling_governor - - - - performance

# Isolated CPUs enter no idle state that takes longer to leave, in microseconds.
w- /sys/devices/system/cpu/cpu[1-3]/power/pm_qos_resume_latency_us - - - - 10
w- /sys/devices/system/cpu/cpu[5-7]/power/pm_qos_resume_latency_us - - - - 10
"""


def goal(made_up: machine.Machine, housekeeping: set[int]) -> Goal:
    return Goal(made_up, made_up.present - housekeeping, frozenset(housekeeping))


@pytest.fixture
def large(make_up: MakeUp) -> Goal:
    return goal(machine.read(make_up("2x16x2", set()).root), {0, 16, 32, 48})


@pytest.fixture
def small(make_up: MakeUp) -> Goal:
    return goal(machine.read(without_smt(make_up("1x4x2", set())).root), {0, 4})


def texts(part: Part) -> dict[str, str]:
    return {str(file.path): file.text for file in part.files}


def test_with_tuned_a_large_machine_gets_a_profile(large: Goal) -> None:
    part = tuning.part(large, WITH)
    assert texts(part) == {
        "/etc/tuned/isolcpus-dp/tuned.conf": LARGE_PROFILE,
        "/etc/tuned/profiles/isolcpus-dp/tuned.conf": LARGE_PROFILE,
        "/etc/systemd/system/irqbalance.service.d/90-isolcpus-dp.conf": IRQBALANCE,
    }
    assert part.commands == (
        "systemctl enable --now tuned.service",
        "tuned-adm profile isolcpus-dp",
    )
    assert part.notes == ()


def test_without_tuned_a_large_machine_gets_files_for_systemd(large: Goal) -> None:
    part = tuning.part(large, WITHOUT)
    assert texts(part) == {
        "/etc/sysctl.d/90-isolcpus-dp.conf": LARGE_SYSCTL,
        "/etc/tmpfiles.d/isolcpus-dp.conf": LARGE_TMPFILES,
        "/etc/systemd/system/irqbalance.service.d/90-isolcpus-dp.conf": IRQBALANCE,
    }
    assert part.commands == ()
    assert part.notes == (
        "Without TuneD, move interrupts that a driver has put on isolated CPUs (echo 0,16,32,48 >"
        " /proc/irq/NUMBER/smp_affinity_list), and kernel threads that choose their CPUs"
        " themselves, such as kswapd (taskset -pc 0,16,32,48 PID), after each boot; if the driver"
        " of the CPUs' frequency is a module, such as acpi-cpufreq, run systemd-tmpfiles --create"
        " /etc/tmpfiles.d/isolcpus-dp.conf after each boot.",
    )


def test_machine_without_smt_gets_files_for_systemd(small: Goal) -> None:
    found = texts(tuning.part(small, WITHOUT))
    assert found["/etc/tmpfiles.d/isolcpus-dp.conf"] == SMALL_TMPFILES
    assert "\nkernel.watchdog_cpumask = 0,4\n" in found["/etc/sysctl.d/90-isolcpus-dp.conf"]


def test_machine_without_smt_gets_a_profile(small: Goal) -> None:
    found = texts(tuning.part(small, WITH))["/etc/tuned/profiles/isolcpus-dp/tuned.conf"]
    assert "\nisolated=1-3,5-7\n" in found
    assert "\n/sys/devices/virtual/workqueue/cpumask=11\n" in found
    assert "\nkernel.watchdog_cpumask=0,4\n" in found


def test_tuned_of_debian_12_leaves_a_note(large: Goal) -> None:
    [note] = tuning.part(large, Target("debian", (6, 1), tuned=True)).notes
    assert "cannot load its plugin scheduler" in note


def test_no_isolated_cpu_needs_no_file(make_up: MakeUp) -> None:
    whole = goal(machine.read(make_up("1x1x1", set()).root), {0})
    for target in (WITH, WITHOUT):
        part = tuning.part(whole, target)
        assert (part.files, part.commands, part.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("cgroups", "moved"),
    [
        ("0::/", True),  # a kernel thread
        ("12:pids:/,11:cpuset:/,1:name=systemd:/,0::/", True),
        ("0::/init.scope", False),
        ("0::/system.slice/kubelet.service", False),
        ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-a.scope", False),
        ("12:pids:/system.slice/ssh.service,11:cpuset:/,0::/system.slice/ssh.service", False),
        ("4:cpuset:/,1:name=systemd:/user.slice", False),
    ],
)
def test_tuned_moves_only_kernel_threads(large: Goal, cgroups: str, moved: bool) -> None:
    text = texts(tuning.part(large, WITH))["/etc/tuned/isolcpus-dp/tuned.conf"]
    profile = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    profile.read_string(text)
    assert (re.search(profile["scheduler"]["cgroup_ps_blacklist"], cgroups) is None) is moved


def masks(part: Part) -> set[str]:
    """The masks of more than 32 CPUs in the files."""
    return {
        mask
        for text in texts(part).values()
        for mask in re.findall(r"\b[0-9a-f]{1,8}(?:,[0-9a-f]{8})+$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("target", [WITH, WITHOUT])
def test_masks_of_many_cpus_have_groups_of_eight_digits(make_up: MakeUp, target: Target) -> None:
    stay = {0, 31, 32, 63, 64, 100, 127}
    part = tuning.part(goal(machine.read(make_up("1x64x2", set()).root), stay), target)
    [mask] = masks(part)
    assert mask == "80000010,00000001,80000001,80000001"
    assert parse_mask(mask) == stay


numbers_of_cpus = st.integers(0, 2100)


@given(
    st.frozensets(numbers_of_cpus)
    | st.builds(range, numbers_of_cpus, numbers_of_cpus).map(frozenset)
)
def test_patterns_match_the_numbers_and_no_others(numbers: frozenset[int]) -> None:
    found = tmpfiles.patterns(numbers)
    matched = [cpu for cpu in range(2200) for one in found if fnmatch.fnmatchcase(str(cpu), one)]
    assert sorted(matched) == sorted(numbers)  # each of them once


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], []),
        ([0], ["0"]),
        (range(100), ["[0-9]", "[1-9][0-9]"]),
        ([9, 10, 99, 100, 101], ["9", "10", "99", "10[0-1]"]),
        (
            range(2, 2048),
            [
                "[2-9]",
                "[1-9][0-9]",
                "[1-9][0-9][0-9]",
                "1[0-9][0-9][0-9]",
                "20[0-3][0-9]",
                "204[0-7]",
            ],
        ),
    ],
)
def test_patterns_are_few(numbers: list[int], expected: list[str]) -> None:
    assert tmpfiles.patterns(numbers) == expected
