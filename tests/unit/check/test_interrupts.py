"""Interrupts that may fire, or fired, on isolated CPUs."""

from __future__ import annotations

import pytest

from isolcpus_dp.report.check import files, interrupts
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost

HEADLINE = "           CPU0       CPU1       CPU2       CPU3       CPU4       CPU5       CPU6  CPU7"


def counted(device_on_3: int, timer_on_2: int) -> str:
    return (
        f"{HEADLINE}\n"
        f"  24:  9  0  0  {device_on_3}  0  0  0  0  PCI-MSI 524288-edge  eth0-rx-0\n"
        f" LOC:  9  9  {timer_on_2}  0  9  9  0  0  Local timer interrupts\n"
        f" ERR:  0\n"
    )


def test_interrupts_on_housekeeping_cpus_are_ok(made_up: MadeUpHost) -> None:
    made_up.irq(24, "eth0-rx-0", "1")
    made_up.irq(25, "", "3")  # no driver has requested it
    made_up.proc("irq/default_smp_affinity", "33")
    found = interrupts.affinity(made_up.host())
    assert (found.verdict, found.evidence) == (Verdict.OK, "2 interrupts, none on isolated CPUs")


def test_interrupt_moved_to_an_isolated_cpu_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.irq(24, "eth0-rx-0", "3")
    made_up.irq(9, "acpi", "0")
    found = interrupts.affinity(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == "interrupts that may fire on isolated CPUs: 24 (eth0-rx-0) on CPU 3"
    assert "echo 0-1,4-5 > /proc/irq/NUMBER/smp_affinity_list" in found.advice


def test_interrupt_moved_away_that_has_not_fired_since_is_ok(made_up: MadeUpHost) -> None:
    made_up.irq(1, "i8042", "3", allowed="0-1,4-5")
    assert interrupts.affinity(made_up.host()).verdict is Verdict.OK


def spread_over(made_up: MadeUpHost, count_on_3: int) -> None:
    """One queue of a driver for each of CPUs 2 and 3, as the kernel assigns them."""
    made_up.proc("cmdline", "isolcpus=domain,managed_irq,2-3,6-7")
    for irq, cpu in ((30, 2), (31, 3)):
        made_up.irq(irq, f"nvme0q{cpu}", str(cpu), allowed=str(cpu))
    made_up.proc(
        "interrupts",
        f"{HEADLINE}\n"
        "  30:  0  0  0  0  0  0  0  0  PCI-MSI 1-edge  nvme0q2\n"
        f"  31:  0  0  0  {count_on_3}  0  0  0  0  PCI-MSI 2-edge  nvme0q3\n"
        " ERR:  0\n",
    )


def test_queues_of_isolated_cpus_that_never_fired_are_ok(made_up: MadeUpHost) -> None:
    spread_over(made_up, 0)
    found = interrupts.affinity(made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "2 interrupts, none on isolated CPUs except 2 of their own queues, which have never fired",
    )


def test_queue_of_an_isolated_cpu_that_fires_is_a_warning(made_up: MadeUpHost) -> None:
    spread_over(made_up, 1)
    found = interrupts.affinity(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence.endswith("isolated CPUs: 31 (nvme0q3) on CPU 3")


def test_isolated_cpus_queues_need_managed_irq(made_up: MadeUpHost) -> None:
    spread_over(made_up, 0)
    made_up.proc("cmdline", "isolcpus=domain,2-3,6-7")
    assert interrupts.affinity(made_up.host()).verdict is Verdict.WARNING


def test_interrupt_that_may_fire_on_both_kinds_of_cpus_is_found(made_up: MadeUpHost) -> None:
    spread_over(made_up, 0)
    made_up.irq(32, "eth0-config", "2", allowed="0-3")
    assert "eth0-config" in interrupts.affinity(made_up.host()).evidence


def test_allowed_cpus_count_without_an_effective_affinity(made_up: MadeUpHost) -> None:
    made_up.irq(24, "eth0-rx-0", "", allowed="1-2")
    assert interrupts.affinity(made_up.host()).verdict is Verdict.WARNING


def test_isolated_cpus_in_the_default_affinity_are_a_warning(made_up: MadeUpHost) -> None:
    made_up.irq(24, "eth0-rx-0", "1")
    made_up.proc("irq/default_smp_affinity", "ff")
    found = interrupts.affinity(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence == ("new device interrupts may fire on isolated CPU 2-3,6-7 by default")
    assert found.advice == "Boot with irqaffinity=0-1,4-5"


def test_affinity_without_interrupts_is_unknown(made_up: MadeUpHost) -> None:
    assert interrupts.affinity(made_up.host()).verdict is Verdict.UNKNOWN


def judged(made_up: MadeUpHost, before: str, after: str) -> tuple[Verdict, str]:
    """Verdict and evidence from two readings of /proc/interrupts, one second apart."""
    host = made_up.host(interval=1.0)
    made_up.proc("interrupts", before)
    first = interrupts.read(host)
    made_up.proc("interrupts", after)
    found = interrupts.judge(host, first, interrupts.read(host))
    return found.verdict, found.evidence


def test_interrupts_from_before_the_interval_are_ok(made_up: MadeUpHost) -> None:
    assert judged(made_up, counted(7, 1000), counted(7, 1002)) == (
        Verdict.OK,
        "no device interrupts and at most 2 kernel interrupts per CPU in 1 s",
    )


def test_many_timer_interrupts_are_a_warning(made_up: MadeUpHost) -> None:
    assert judged(made_up, counted(7, 1000), counted(7, 1250)) == (
        Verdict.WARNING,
        "kernel interrupts fired 250 times on CPU 2 in 1 s: LOC 250",
    )


def test_interrupt_of_a_device_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.irq(24, "eth0-rx-0", "3")
    assert judged(made_up, counted(7, 1000), counted(10, 1250)) == (
        Verdict.PROBLEM,
        "device interrupts fired on isolated CPUs in 1 s: 24 (eth0-rx-0) 3 times on CPU 3",
    )


def test_counts_without_interrupts_are_unknown(made_up: MadeUpHost) -> None:
    assert interrupts.counts(made_up.host(interval=0.01)).verdict is Verdict.UNKNOWN


def test_counts_compare_two_readings(made_up: MadeUpHost) -> None:
    made_up.proc("interrupts", counted(7, 1000))
    found = interrupts.counts(made_up.host(interval=0.01))
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "no device interrupts and at most 0 kernel interrupts per CPU in 0.01 s",
    )


@pytest.mark.parametrize(
    ("chip", "number"), [("GICv3", "27"), ("GIC-0", "30"), ("xen-percpu", "9")]
)
def test_per_cpu_interrupt_is_not_a_device_interrupt(
    made_up: MadeUpHost, chip: str, number: str
) -> None:
    made_up.irq(11, "arch_timer", "0-7")
    made_up.sys("kernel/irq/11/chip_name", chip)
    made_up.sys("kernel/irq/11/hwirq", number)
    assert interrupts.affinity(made_up.host()).verdict is Verdict.OK
    found = interrupts.judge(made_up.host(1.0), {"11": {3: 1}}, {"11": {3: 3}})
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        "no device interrupts and at most 2 kernel interrupts per CPU in 1 s",
    )
    made_up.sys("kernel/irq/11/chip_name", "GICv3")
    made_up.sys("kernel/irq/11/hwirq", "35")
    assert interrupts.affinity(made_up.host()).verdict is Verdict.WARNING


def test_host_without_irqbalance_is_ok(made_up: MadeUpHost) -> None:
    assert interrupts.irqbalance(made_up.host()).evidence == "irqbalance is not running"


def test_irqbalance_in_a_container_is_not_trusted(made_up: MadeUpHost) -> None:
    made_up.process(50, "irqbalance", "0-1,4-5")
    made_up.proc("50/environ", "IRQBALANCE_BANNED_CPULIST=2-3,6-7")
    made_up.contains(50, "a", None)
    found = interrupts.irqbalance(made_up.host())
    assert found.verdict is Verdict.UNKNOWN
    assert found.evidence.startswith("a process named irqbalance runs in container aaaaaaaaaaaa: ")


def test_irqbalance_is_unknown_when_proc_hides_processes(made_up: MadeUpHost) -> None:
    made_up.hide_processes()
    with pytest.raises(files.Unseen, match="/proc hides processes"):
        interrupts.irqbalance(made_up.host())


@pytest.mark.parametrize(
    ("environment", "verdict"),
    [
        ("PATH=/usr/bin", Verdict.OK),
        ("IRQBALANCE_BANNED_CPULIST=2-3,6-7\0PATH=/usr/bin", Verdict.OK),
        ("IRQBALANCE_BANNED_CPUS=000000cc", Verdict.OK),
        ("PATH=/usr/bin\0IRQBALANCE_BANNED_CPULIST=2-3", Verdict.PROBLEM),
        ("IRQBALANCE_BANNED_CPUS=4c", Verdict.PROBLEM),
        # If both are set, irqbalance uses the mask.
        ("IRQBALANCE_BANNED_CPUS=0\0IRQBALANCE_BANNED_CPULIST=2-3,6-7", Verdict.PROBLEM),
    ],
)
def test_irqbalance_is_judged_by_its_banned_cpus(
    made_up: MadeUpHost, environment: str, verdict: Verdict
) -> None:
    made_up.process(50, "irqbalance", "0-1,4-5")
    made_up.proc("50/environ", environment)
    assert interrupts.irqbalance(made_up.host()).verdict is verdict
