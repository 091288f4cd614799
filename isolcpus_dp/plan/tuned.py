"""Host tuning with TuneD: a profile of its own, which includes none of TuneD's profiles.

The sections and options exist in TuneD 2.20 (Debian 12) and newer. docs/plan.md says why it does
not include cpu-partitioning, realtime or network-latency.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from isolcpus_dp.host import files as host_files
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.plan.part import MARK, File
from isolcpus_dp.report.check.settings import (
    GOVERNOR,
    INTERRUPTS,
    LATENCY_LIMIT,
    SETTINGS,
    Cpus,
    Setting,
)

PROFILE = "isolcpus-dp"

# TuneD up to 2.22 and that of EL 9 read profiles in the first directory only, all others in the
# second one only. Each ignores the other's.
_DIRECTORIES = (PurePosixPath("/etc/tuned"), PurePosixPath("/etc/tuned/profiles"))

PATHS = tuple(base / PROFILE / "tuned.conf" for base in _DIRECTORIES)
COMMANDS = ("systemctl enable --now tuned.service", f"tuned-adm profile {PROFILE}")

# The names of the selected profiles.
_ACTIVE = "etc/tuned/active_profile"
# The unit is enabled by a link in one of these directories.
_UNITS = ("etc/systemd/system", "usr/lib/systemd/system")
_ENABLED = "multi-user.target.wants/tuned.service"

# The options of TuneD's plugin cpu for the settings that each CPU has.
_CPU_OPTIONS = {GOVERNOR: "governor", LATENCY_LIMIT: "pm_qos_resume_latency_us"}

# Negative, so that this instance gets its CPUs before one of another profile that has all CPUs.
_FIRST = -1


def files(cpus: Cpus) -> tuple[File, ...]:
    """The profile, for each version of TuneD in the directory that it reads."""
    text = profile(cpus)
    return tuple(File(path, text) for path in PATHS)


def differences(root: Path) -> Iterator[str]:
    """Whether TuneD starts at boot and has the profile selected, as sentences. Raises Unseen."""
    enable, select = COMMANDS
    if not any(os.path.lexists(root / units / _ENABLED) for units in _UNITS):
        yield f"tuned.service is not enabled: run {enable}"
    active = host_files.text(root / _ACTIVE).split()
    if PROFILE not in active:
        yield f"TuneD's profile is {' '.join(active) or '(none)'}, and not {PROFILE}: run {select}"


def profile(cpus: Cpus) -> str:
    """The text of tuned.conf."""
    isolated = render(cpus.isolated)
    sysctl = [setting for setting in SETTINGS if setting.sysctl]
    sysfs = [setting for setting in SETTINGS if setting.root == "/sys" and not setting.per_cpu]
    per_cpu = [setting for setting in SETTINGS if setting.per_cpu]
    sections = [
        f"# {MARK}\n[main]\nsummary=Quiet isolated CPUs: {isolated}\n",
        f"[variables]\nisolated={isolated}\n",
        "[sysctl]\n" + "".join(_line(one, str(one.sysctl), cpus) for one in sysctl),
        "[sysfs]\n" + "".join(_line(one, one.path, cpus) for one in sysfs),
        "[isolated_cpus]\n"
        "type=cpu\n"
        f"priority={_FIRST}\n"
        "devices=${f:cpulist2devs:${isolated}}\n"
        + "".join(_line(one, _CPU_OPTIONS[one], cpus) for one in per_cpu),
        "[scheduler]\n"
        f"# {INTERRUPTS.why} Existing ones are moved there.\n"
        "# The list must not have offline CPUs: TuneD would then move nothing.\n"
        "isolated_cores=${f:cpulist_online:${isolated}}\n"
        "# Only kernel threads are moved, which are in the root cgroup: never owners.\n"
        "cgroup_ps_blacklist=:/[^,]\n"
        "# Once, when the profile is applied; new processes are not watched.\n"
        "runtime=0\n",
    ]
    return "\n".join(sections)


def _line(setting: Setting, option: str, cpus: Cpus) -> str:
    return f"# {setting.why}\n{option}={setting.value(cpus)}\n"
