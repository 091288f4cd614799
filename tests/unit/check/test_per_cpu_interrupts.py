"""Interrupts of which each CPU has its own, on machines where these have numbers.

The trees follow the output of such machines with four CPUs, of which 2 and 3 are isolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from isolcpus_dp.report.check import interrupts
from isolcpus_dp.report.check.finding import Verdict
from tests.unit.conftest import MakeUp

from .conftest import MadeUpHost


@dataclass(frozen=True)
class Irq:
    """An interrupt: /proc/irq/NUMBER, /sys/kernel/irq/NUMBER and its line in /proc/interrupts."""

    chip: str
    hwirq: str
    device: str
    effective: str
    counts: tuple[int, int, int, int]
    allowed: str = "0-3"


RASPBERRY_PI_3 = {
    17: Irq("ARMCTRL-level", "1", "3f00b880.mailbox", "", (1580, 0, 0, 0)),
    49: Irq("bcm2836-timer", "0", "arch_timer", "", (0, 0, 0, 0)),
    50: Irq("bcm2836-timer", "1", "arch_timer", "", (91832, 76544, 80122, 78410)),
    53: Irq("bcm2836-pmu", "9", "arm-pmu", "", (0, 0, 0, 0)),
    79: Irq("ARMCTRL-level", "59", "dwc_otg", "", (40211, 0, 0, 0)),
    85: Irq("pinctrl-bcm2835", "17", "button", "", (3, 0, 0, 0)),
}

RISC_V = {
    5: Irq("RISC-V INTC", "5", "riscv-timer", "", (52345, 49021, 47311, 50112)),
    9: Irq("RISC-V INTC", "13", "riscv-pmu", "", (0, 0, 0, 12)),
    11: Irq("SiFive PLIC", "10", "ttyS0", "1", (0, 812, 0, 0)),
    13: Irq("SiFive PLIC", "8", "virtio0", "0", (9211, 0, 0, 0)),
}

ARM_GIC = {
    11: Irq("GICv3", "27", "arch_timer", "", (71231, 60120, 58991, 59002)),
    12: Irq("GICv3", "26", "kvm guest vtimer", "", (0, 0, 0, 0)),
    14: Irq("GICv3", "23", "arm-pmu", "", (0, 0, 0, 4)),
    15: Irq("GICv3", "33", "uart-pl011", "0", (190, 0, 0, 0)),
    40: Irq("ITS-MSI", "16384", "nvme0q0", "1", (0, 300, 0, 0)),
}

LOONGARCH = {
    17: Irq("CPUINTC", "12", "IPI", "", (211, 198, 201, 188)),
    18: Irq("CPUINTC", "11", "timer", "", (61231, 60120, 58991, 59002)),
    20: Irq("PCH-PIC", "7", "acpi", "0", (1, 0, 0, 0)),
}

X86 = {
    0: Irq("IO-APIC", "2", "timer", "0", (20, 0, 0, 0)),
    9: Irq("IO-APIC", "9", "acpi", "1", (0, 4, 0, 0)),
    24: Irq("PCI-MSI-0000:00:1f.2", "0", "ahci", "1", (9, 800, 0, 0)),
}

# Each CPU has its own interrupt for each purpose, with an effective CPU.
XEN = {
    16 + cpu: Irq("xen-percpu", "1", f"timer{cpu}", str(cpu), (7, 0, 0, 0)) for cpu in range(4)
} | {40: Irq("xen-dyn", "9", "eth0-q0-tx", "0", (1020, 0, 0, 0))}


@pytest.fixture
def quad(make_up: MakeUp, tmp_path: Path) -> MadeUpHost:
    """Four CPUs; 2 and 3 are isolated."""
    return MadeUpHost(make_up("1x4x1", {2, 3}), tmp_path)


def build(made_up: MadeUpHost, irqs: Mapping[int, Irq]) -> None:
    lines = ["           CPU0       CPU1       CPU2       CPU3"]
    for number, irq in irqs.items():
        made_up.irq(number, irq.device, irq.effective, irq.allowed)
        made_up.sys(f"kernel/irq/{number}/chip_name", irq.chip)
        made_up.sys(f"kernel/irq/{number}/hwirq", irq.hwirq)
        counts = "  ".join(map(str, irq.counts))
        lines.append(f" {number}:  {counts}  {irq.chip}  {irq.hwirq} Edge  {irq.device}")
    made_up.proc("interrupts", "\n".join([*lines, "IPI0:  9  9  9  9  Rescheduling interrupts"]))


@pytest.mark.parametrize("irqs", [RASPBERRY_PI_3, RISC_V, ARM_GIC, LOONGARCH, X86, XEN])
def test_interrupts_of_an_ordinary_machine_are_ok(
    quad: MadeUpHost, irqs: Mapping[int, Irq]
) -> None:
    build(quad, irqs)
    found = interrupts.affinity(quad.host())
    assert (found.verdict, found.evidence) == (
        Verdict.OK,
        f"{len(irqs)} interrupts, none on isolated CPUs",
    )


def fired_between(made_up: MadeUpHost, irqs: Mapping[int, Irq], number: int) -> tuple[Verdict, str]:
    """The finding when this interrupt fires twice on CPU 3 and all else is quiet."""
    build(made_up, irqs)
    host = made_up.host(interval=1.0)
    before = interrupts.read(host)
    counts = irqs[number].counts
    later = replace(irqs[number], counts=(*counts[:3], counts[3] + 2))
    lines = (made_up.directory / "proc/interrupts").read_text()
    old, new = ("  ".join(map(str, irq.counts)) for irq in (irqs[number], later))
    made_up.proc("interrupts", lines.replace(f" {number}:  {old}", f" {number}:  {new}"))
    found = interrupts.judge(host, before, interrupts.read(host))
    return found.verdict, found.evidence


@pytest.mark.parametrize(
    ("irqs", "number"),
    [
        (RASPBERRY_PI_3, 50),
        (RISC_V, 5),
        (RISC_V, 9),
        (ARM_GIC, 11),
        (ARM_GIC, 14),
        (LOONGARCH, 17),
        (XEN, 19),
    ],
)
def test_own_interrupt_of_a_cpu_counts_as_the_kernels(
    quad: MadeUpHost, irqs: Mapping[int, Irq], number: int
) -> None:
    assert fired_between(quad, irqs, number) == (
        Verdict.OK,
        "no device interrupts and at most 2 kernel interrupts per CPU in 1 s",
    )


@pytest.mark.parametrize(
    ("irqs", "number", "device"),
    [
        (RASPBERRY_PI_3, 79, "dwc_otg"),
        (RASPBERRY_PI_3, 85, "button"),
        (RISC_V, 11, "ttyS0"),
        (ARM_GIC, 15, "uart-pl011"),
        (X86, 24, "ahci"),
        (XEN, 40, "eth0-q0-tx"),
    ],
)
def test_interrupt_of_a_device_is_a_problem_on_each_machine(
    quad: MadeUpHost, irqs: Mapping[int, Irq], number: int, device: str
) -> None:
    assert fired_between(quad, irqs, number) == (
        Verdict.PROBLEM,
        f"device interrupts fired on isolated CPUs in 1 s: {number} ({device}) 2 times on CPU 3",
    )


def test_device_that_was_on_every_cpu_in_turn_is_a_device(quad: MadeUpHost) -> None:
    moved = {24: Irq("PCI-MSI", "0", "eth0", "3", (800, 700, 900, 10))}
    assert fired_between(quad, moved, 24)[0] is Verdict.PROBLEM
    found = interrupts.affinity(quad.host())
    assert (found.verdict, found.evidence) == (
        Verdict.WARNING,
        "interrupts that may fire on isolated CPUs: 24 (eth0) on CPU 3",
    )


def test_interrupt_that_cannot_be_directed_is_where_it_fired(quad: MadeUpHost) -> None:
    build(quad, {85: Irq("pinctrl-bcm2835", "17", "button", "", (0, 0, 3, 0))})
    found = interrupts.affinity(quad.host())
    assert (found.verdict, found.evidence) == (
        Verdict.WARNING,
        "interrupts that may fire on isolated CPUs: 85 (button) on CPU 2",
    )


def test_effective_affinity_of_all_cpus_is_no_direction(quad: MadeUpHost) -> None:
    timer = {5: Irq("timer", "7", "local-timer", "0-3", (52345, 49021, 47311, 50112))}
    assert fired_between(quad, timer, 5)[0] is Verdict.OK
    assert interrupts.affinity(quad.host()).verdict is Verdict.OK


def test_kernel_without_effective_affinities_shows_devices(quad: MadeUpHost) -> None:
    build(quad, {24: Irq("PCI-MSI", "0", "eth0", "", (800, 700, 900, 10))})
    (quad.directory / "proc/irq/24/effective_affinity_list").unlink()
    found = interrupts.affinity(quad.host())
    assert found.evidence == "interrupts that may fire on isolated CPUs: 24 (eth0) on CPU 2-3"
