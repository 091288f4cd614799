"""What the plan writes for host tuning is what check asks for: files applied to a made-up host."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from isolcpus_dp.host import machine
from isolcpus_dp.host.cpulist import parse, render_mask
from isolcpus_dp.plan import tuning
from isolcpus_dp.plan.part import Goal, Part, Target
from isolcpus_dp.report.check import table
from isolcpus_dp.report.check.finding import Verdict
from isolcpus_dp.report.check.settings import SETTINGS
from tests.unit.check.conftest import MadeUpHost
from tests.unit.conftest import MakeUp

ISOLATED = frozenset({2, 3, 6, 7})
STAY = frozenset({0, 1, 4, 5})
CPUS = "devices/system/cpu/cpu"

each_check = pytest.mark.parametrize("check", sorted({setting.check for setting in SETTINGS}))
with_and_without_tuned = pytest.mark.parametrize("tuned", [True, False])


@pytest.fixture
def untuned(make_up: MakeUp, tmp_path: Path) -> MadeUpHost:
    """A host as a distribution installs it, or worse."""
    host = MadeUpHost(make_up("1x4x2", set(ISOLATED)), tmp_path)
    for name, text in (
        ("watchdog", "1"),
        ("watchdog_cpumask", "0-7"),
        ("timer_migration", "0"),
        ("numa_balancing", "1"),
    ):
        host.proc(f"sys/kernel/{name}", text)
    host.proc("irq/default_smp_affinity", "ff")
    host.proc("cmdline", "quiet")
    host.irq(24, "eth0", "0")
    host.sys("devices/virtual/workqueue/cpumask", "ff")
    host.sys("devices/system/clocksource/clocksource0/current_clocksource", "tsc")
    for cpu in range(8):
        host.sys(f"{CPUS}{cpu}/cpufreq/scaling_governor", "powersave")
        host.sys(f"{CPUS}{cpu}/power/pm_qos_resume_latency_us", "0")
        for name, text in (("name", "C6"), ("latency", "133"), ("disable", "0")):
            host.sys(f"{CPUS}{cpu}/cpuidle/state1/{name}", text)
    (host.directory / "cpu_dma_latency").write_bytes(b"\xff\xff\xff\x7f")
    return host


def planned(host: MadeUpHost, *, tuned: bool) -> Part:
    goal = Goal(machine.read(host.tree.root), ISOLATED, STAY)
    return tuning.part(goal, Target("el", (6, 12), tuned=tuned))


def put(host: MadeUpHost, path: str, value: str) -> None:
    """Writes to the existing files that match a path."""
    root = {"sys": host.tree.root, "proc": host.directory / "proc"}[path.split("/")[1]]
    for file in root.glob(path.split("/", 2)[2]):
        file.write_text(f"{value}\n")


def expanded(text: str) -> str:
    """With TuneD's functions called; all CPUs are online."""

    def call(match: re.Match[str]) -> str:
        cpus = sorted(parse(match[2]))
        return " ".join(f"cpu{cpu}" for cpu in cpus) if match[1] == "cpulist2devs" else match[2]

    return re.sub(r"\$\{f:(cpulist2devs|cpulist_online):([-,0-9]+)\}", call, text)


def apply_profile(host: MadeUpHost, text: str) -> None:
    """As TuneD does."""
    read = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    read.read_string(text)
    profile = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    profile.read_string(expanded(text.replace("${isolated}", read["variables"]["isolated"])))
    for option, value in profile["sysctl"].items():
        put(host, f"/proc/sys/{option.replace('.', '/')}", value)
    for option, value in profile["sysfs"].items():
        put(host, option, value)
    cpu = profile["isolated_cpus"]
    for device in cpu["devices"].split():
        put(host, f"/sys/devices/system/cpu/{device}/cpufreq/scaling_governor", cpu["governor"])
        latency = cpu["pm_qos_resume_latency_us"]
        put(host, f"/sys/devices/system/cpu/{device}/power/pm_qos_resume_latency_us", latency)
    left = frozenset(range(8)) - parse(profile["scheduler"]["isolated_cores"])
    put(host, "/proc/irq/default_smp_affinity", render_mask(left))


def apply(host: MadeUpHost, part: Part) -> None:
    for file in part.files:
        lines = [line for line in file.text.splitlines() if line and not line.startswith("#")]
        if file.path.name == "tuned.conf":
            apply_profile(host, file.text)
        elif "sysctl.d" in file.path.parts:
            for name, _, value in (line.partition(" = ") for line in lines):
                put(host, f"/proc/sys/{name.replace('.', '/')}", value)
        elif "tmpfiles.d" in file.path.parts:
            for kind, path, *unused, value in map(str.split, lines):
                assert (kind, unused) == ("w-", ["-"] * 4)
                put(host, path, value)


def verdict(host: MadeUpHost, check: str) -> Verdict:
    [result] = table.run(host.host(), [check])
    return result.finding.verdict


@each_check
def test_untuned_host_gets_a_warning(untuned: MadeUpHost, check: str) -> None:
    assert verdict(untuned, check) is Verdict.WARNING


@with_and_without_tuned
@each_check
def test_tuned_host_is_ok(untuned: MadeUpHost, check: str, tuned: bool) -> None:
    apply(untuned, planned(untuned, tuned=tuned))
    assert verdict(untuned, check) is Verdict.OK


@with_and_without_tuned
def test_housekeeping_cpus_are_left_alone(untuned: MadeUpHost, tuned: bool) -> None:
    apply(untuned, planned(untuned, tuned=tuned))
    for cpu in range(8):
        directory = untuned.directory / "sys" / f"{CPUS}{cpu}"
        found = (
            (directory / "cpufreq/scaling_governor").read_text(),
            (directory / "power/pm_qos_resume_latency_us").read_text(),
        )
        assert found == (("performance\n", "10\n") if cpu in ISOLATED else ("powersave\n", "0\n"))


@pytest.mark.parametrize(
    ("check", "advice", "line"),
    [
        ("timers", "sysctl kernel.timer_migration=1", "kernel.timer_migration=1"),
        (
            "watchdog",
            "sysctl kernel.watchdog_cpumask=0-1,4-5",
            "kernel.watchdog_cpumask=0-1,4-5",
        ),
        ("numa-balancing", "sysctl kernel.numa_balancing=0", "kernel.numa_balancing=0"),
        ("workqueues", "echo 33 > ", "/sys/devices/virtual/workqueue/cpumask=33"),
        ("cpu-frequency", "frequency-set -g performance", "governor=performance"),
        ("idle-states", "echo 10 > ", "pm_qos_resume_latency_us=10"),
    ],
)
def test_check_advises_what_the_plan_writes(
    untuned: MadeUpHost, check: str, advice: str, line: str
) -> None:
    [result] = table.run(untuned.host(), [check])
    assert advice in result.finding.advice
    assert line in planned(untuned, tuned=True).files[0].text.splitlines()


def test_every_setting_belongs_to_a_check() -> None:
    assert {setting.check for setting in SETTINGS} <= {check.id for check in table.CHECKS}
