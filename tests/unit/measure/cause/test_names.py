"""Names of threads and interrupts, of several kinds of machines."""

from __future__ import annotations

import pytest

from isolcpus_dp.measure.cause import names
from isolcpus_dp.measure.cause.role import Role


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("kworker/3:1", Role.WORK),
        ("kworker/u16:3", Role.WORK),
        ("irq/4-ttyS0", Role.DEVICE),
        ("ksoftirqd/3", Role.SOFTIRQ),
        ("ktimers/3", Role.SOFTIRQ),
        ("rcuc/3", Role.SOFTIRQ),
        ("irq_work/3", Role.IPI),
        ("migration/3", Role.STOPPER),
        ("cpuhp/3", Role.STOPPER),
        ("rcu_preempt/16", Role.KERNEL_THREAD),
        ("rcuop/3", Role.KERNEL_THREAD),
        ("kswapd0/88", Role.KERNEL_THREAD),
        ("jbd2/sda1-8", Role.KERNEL_THREAD),
        ("burn/812", Role.PROCESS),
        ("process/5", Role.PROCESS),  # not the kernel's `pr`
        ("irqbalance/700", Role.PROCESS),
        ("ksoftirqd-top/700", Role.PROCESS),
    ],
)
def test_threads_are_told_apart_by_name(name: str, role: Role) -> None:
    assert names.thread(name) is role


@pytest.mark.parametrize(
    ("line", "device", "role"),
    [
        ("LOC", "", Role.TICK),
        ("11", "arch_timer", Role.TICK),
        ("5", "riscv-timer", Role.TICK),
        ("48", "timer3", Role.TICK),  # Xen
        ("CAL", "", Role.IPI),
        ("IPI0", "", Role.IPI),
        ("49", "resched3", Role.IPI),
        ("50", "callfuncsingle3", Role.IPI),
        ("NMI", "", Role.NMI),
        ("23", "arm-pmu", Role.NMI),
        ("TRM", "", Role.PLATFORM),
        ("4", "ttyS0", Role.DEVICE),
        ("130", "", Role.DEVICE),
        ("MCP", "", None),
        ("ERR", "", None),
    ],
)
def test_lines_of_interrupts_are_told_apart(line: str, device: str, role: Role | None) -> None:
    assert names.line(line, device) is role


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("local_timer", Role.TICK),
        ("arch_timer", Role.TICK),
        ("reschedule", Role.IPI),
        ("call_function", Role.IPI),
        ("call_function_single", Role.IPI),
        ("irq_work", Role.IPI),
        ("IPI", Role.IPI),
        ("thermal_apic", Role.PLATFORM),
        ("ttyS0", Role.DEVICE),
        ("virtio0-input.0", Role.DEVICE),
    ],
)
def test_interrupts_of_osnoise_are_told_apart(name: str, role: Role) -> None:
    assert names.interrupt(name) is role


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("burn/812", "burn"),
        ("a b, c: d/812", "a b, c: d"),
        ("/812", "/812"),
        ("odd/name", "odd/name"),
        ("plain", "plain"),
    ],
)
def test_number_of_a_thread_is_not_part_of_its_name(name: str, group: str) -> None:
    assert names.without_number(name) == group
