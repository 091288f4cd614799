"""Kernel settings that interrupt or slow down owners."""

from __future__ import annotations

import struct

import pytest

from isolcpus_dp.report.check import files, tuning
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost

CLOCK = "devices/system/clocksource/clocksource0/current_clocksource"
HUGE_PAGES = "kernel/mm/transparent_hugepage/enabled"


@pytest.mark.parametrize(
    ("runs", "cpus", "verdict"),
    [
        ("0", "0-7", Verdict.OK),
        ("1", "0-1,4-5", Verdict.OK),
        ("1", "0-7", Verdict.WARNING),
    ],
)
def test_watchdog_is_judged_by_its_cpus(
    made_up: MadeUpHost, runs: str, cpus: str, verdict: Verdict
) -> None:
    made_up.proc("sys/kernel/watchdog", runs)
    made_up.proc("sys/kernel/watchdog_cpumask", cpus)
    assert tuning.watchdog(made_up.host()).verdict is verdict


def test_watchdog_names_cpus_and_setting(made_up: MadeUpHost) -> None:
    made_up.proc("sys/kernel/nmi_watchdog", "1")
    made_up.proc("sys/kernel/watchdog_cpumask", "0-3")
    found = tuning.watchdog(made_up.host())
    assert found.evidence == "the kernel's watchdog interrupts isolated CPU 2-3"
    assert "sysctl kernel.watchdog_cpumask=0-1,4-5" in found.advice


def test_timers_that_migrate_and_a_fast_clock_are_ok(made_up: MadeUpHost) -> None:
    made_up.proc("sys/kernel/timer_migration", "1")
    made_up.sys(CLOCK, "tsc")
    found = tuning.timers(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "timers may migrate; the clock source is tsc",
    )


def test_timers_that_stay_are_a_warning(made_up: MadeUpHost) -> None:
    made_up.proc("sys/kernel/timer_migration", "0")
    assert tuning.timers(made_up.host()).advice == "Run: sysctl kernel.timer_migration=1"


def test_slow_clock_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.sys(CLOCK, "hpet")
    found = tuning.timers(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.WARNING,
        "the clock source is hpet, which is slow to read",
    )


def test_timers_are_unknown_without_their_files(made_up: MadeUpHost) -> None:
    assert tuning.timers(made_up.host()).verdict is Verdict.UNKNOWN


def govern(made_up: MadeUpHost, cpu: int, governor: str) -> None:
    made_up.sys(f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", governor)


def test_host_without_governors_is_ok(made_up: MadeUpHost) -> None:
    found = tuning.frequency(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "isolated CPUs have no frequency governor",
    )


def test_only_the_governor_of_isolated_cpus_counts(made_up: MadeUpHost) -> None:
    for cpu in range(8):
        govern(made_up, cpu, "performance" if cpu in (2, 3, 6, 7) else "powersave")
    found = tuning.frequency(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "the frequency governor of isolated CPUs is performance",
    )


def test_governor_that_saves_power_is_a_warning(made_up: MadeUpHost) -> None:
    for cpu in range(8):
        govern(made_up, cpu, "schedutil" if cpu == 3 else "performance")
    found = tuning.frequency(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "the frequency governor of CPU 3 is schedutil"
    assert found.advice == "Run: cpupower -c 3 frequency-set -g performance"


def idle(made_up: MadeUpHost, cpu: int, disable: str) -> None:
    """Idle states POLL and C6, which has a long exit latency."""
    for state, name, latency, off in (
        ("state0", "POLL", "0", "0"),
        ("state1", "C6", "133", disable),
    ):
        for file, text in (("name", name), ("latency", latency), ("disable", off)):
            made_up.sys(f"devices/system/cpu/cpu{cpu}/cpuidle/{state}/{file}", text)


def test_deep_idle_state_of_an_isolated_cpu_is_a_warning(made_up: MadeUpHost) -> None:
    for cpu in range(8):
        idle(made_up, cpu, "1" if cpu == 2 else "0")
    found = tuning.idle_states(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == (
        "CPU 3,6-7 may enter idle states with an exit latency above 10 us: C6"
    )
    assert found.advice == (
        "Limit the latency of each: echo 10 >"
        " /sys/devices/system/cpu/cpuNUMBER/power/pm_qos_resume_latency_us"
    )


@pytest.mark.parametrize(("limit", "verdict"), [("n/a", "ok"), ("5", "ok"), ("0", "warning")])
def test_latency_limit_of_a_cpu_forbids_deep_states(
    made_up: MadeUpHost, limit: str, verdict: str
) -> None:
    idle(made_up, 2, "0")
    made_up.sys("devices/system/cpu/cpu2/power/pm_qos_resume_latency_us", limit)
    assert tuning.idle_states(made_up.host()).verdict.value == verdict


@pytest.mark.parametrize(
    ("latency", "verdict"),
    [(0, "ok"), (10, "ok"), (11, "warning"), (2_000_000_000, "warning")],
)
def test_latency_request_for_all_cpus_forbids_deep_states(
    made_up: MadeUpHost, latency: int, verdict: str
) -> None:
    idle(made_up, 2, "0")
    (made_up.directory / "cpu_dma_latency").write_bytes(struct.pack("=i", latency))
    assert tuning.idle_states(made_up.host()).verdict.value == verdict


def test_idle_states_are_unknown_if_the_latency_is_unreadable(made_up: MadeUpHost) -> None:
    idle(made_up, 2, "0")
    (made_up.directory / "cpu_dma_latency").mkdir()  # root can read any regular file
    with pytest.raises(files.Unseen, match=r"cannot read .*/cpu_dma_latency: "):
        tuning.idle_states(made_up.host())


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("[always] madvise never", Verdict.WARNING),
        ("always [madvise] never", Verdict.OK),
        ("always madvise [never]", Verdict.OK),
    ],
)
def test_huge_pages_for_all_processes_are_a_warning(
    made_up: MadeUpHost, text: str, verdict: Verdict
) -> None:
    made_up.sys(HUGE_PAGES, text)
    assert tuning.huge_pages(made_up.host()).verdict is verdict


def test_kernel_without_huge_pages_is_ok(made_up: MadeUpHost) -> None:
    assert tuning.huge_pages(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize(("text", "verdict"), [("0", Verdict.OK), ("1", Verdict.WARNING)])
def test_numa_balancing_is_a_warning(made_up: MadeUpHost, text: str, verdict: Verdict) -> None:
    made_up.proc("sys/kernel/numa_balancing", text)
    assert tuning.numa_balancing(made_up.host()).verdict is verdict


def test_kernel_without_numa_balancing_is_ok(made_up: MadeUpHost) -> None:
    assert tuning.numa_balancing(made_up.host()).verdict is Verdict.OK
