"""The role of a thread or an interrupt, by its name.

Names are those of Linux: of threads, of lines in /proc/interrupts, and of osnoise's interrupts.
"""

from __future__ import annotations

import re

from isolcpus_dp.measure.cause.role import Role

# Threads by the beginning of their name; the first match counts. A process may call itself like
# one of them; its advice is then the wrong one.
_THREADS = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"kworker/", Role.WORK),
        (r"irq/\d+-", Role.DEVICE),
        (r"(ksoftirqd|ktimers|rcuc)/\d+$", Role.SOFTIRQ),
        (r"irq_work/\d+$", Role.IPI),
        (r"(migration|cpuhp|idle_inject)/\d+$", Role.STOPPER),
        (
            r"(rcu_\w+|rcuo[bgps]?|rcuog|rcub|kswapd\d+|kcompactd\d+|khugepaged|ksmd|kauditd"
            r"|khungtaskd|oom_reaper|kthreadd|kdevtmpfs|psimon|watchdogd|jbd2|scsi_eh_\d+|loop\d+"
            r"|md\d+_\w+|xfsaild|usb-storage|pr|kvm-nx-lpage-recovery-\d+|kvm-pit)(/|$)",
            Role.KERNEL_THREAD,
        ),
    )
)

# Lines of /proc/interrupts that the kernel names itself (arch/*/kernel/irq.c). Others, as those
# that count errors of an interrupt controller, are left out.
_LINES = {
    **dict.fromkeys(("LOC", "HVS"), Role.TICK),
    **dict.fromkeys(("CAL", "RES", "TLB", "IWI", "PLT", "PIN", "NPI", "PIW", "DBL"), Role.IPI),
    **dict.fromkeys(("NMI", "PMI"), Role.NMI),
    **dict.fromkeys(("TRM", "THR", "DFR", "MCE"), Role.PLATFORM),
}

# Names that interrupts have in osnoise on x86 (arch/x86/kernel/trace.c). On other machines these
# are the names of the handlers, as in /proc/interrupts.
_VECTORS = {
    "local_timer": Role.TICK,
    **dict.fromkeys(
        (
            "reschedule",
            "call_function",
            "call_function_single",
            "irq_work",
            "x86_platform_ipi",
            "IPI",
        ),
        Role.IPI,
    ),
    **dict.fromkeys(
        ("thermal_apic", "deferred_error", "threshold_apic", "error_apic", "spurious_apic"),
        Role.PLATFORM,
    ),
}

# Handlers of interrupts that each CPU has for itself: of Arm and RISC-V, and of Xen guests, where
# the name ends with the CPU.
_HANDLERS = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"arch_timer|riscv-timer|timer\d*", Role.TICK),
        (r"IPI|(resched|callfunc|callfuncsingle|irqwork|spinlock)\d+", Role.IPI),
        (r"arm-pmu|riscv-pmu", Role.NMI),
    )
)
_IPI_LINE = re.compile(r"IPI\d+")


def thread(name: str) -> Role:
    """The role of a thread: `kworker/3:1`, or `backup/812` with the thread's number."""
    return next((role for pattern, role in _THREADS if pattern.match(name)), Role.PROCESS)


def line_of_thread(name: str) -> str | None:
    """The line of the interrupt that a thread handles: `4` for irq/4-ttyS0."""
    found = re.match(r"irq/(\d+)-", name)
    return found[1] if found else None


def without_number(name: str) -> str:
    """The name of a process's thread without its number: `backup` for backup/812."""
    head, _, number = name.rpartition("/")
    return head if head and number.isdecimal() else name


def is_unbound(kworker: str) -> bool:
    """Whether a kernel worker serves work that is not bound to a CPU: kworker/u8:2."""
    return kworker.startswith("kworker/u")


def line(name: str, device: str) -> Role | None:
    """The role of a line of /proc/interrupts with the name of its handler; None for others."""
    if name in _LINES:
        return _LINES[name]
    if _IPI_LINE.fullmatch(name):
        return Role.IPI
    if device:
        return _handler(device)
    return Role.DEVICE if name.isdecimal() else None


def interrupt(name: str) -> Role:
    """The role of an interrupt as osnoise names it."""
    return _VECTORS.get(name) or _handler(name)


def _handler(name: str) -> Role:
    return next((role for pattern, role in _HANDLERS if pattern.fullmatch(name)), Role.DEVICE)
