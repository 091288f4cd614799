"""Which interrupts may fire on isolated CPUs, and which fired there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, daemons, interrupts
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import advice, boot, files, settings
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning
from isolcpus_dp.report.check.host import HOST_PROC, Host
from isolcpus_dp.report.check.settings import BANNED_LIST, BANNED_MASK

if TYPE_CHECKING:
    from isolcpus_dp.host.interrupts import Counts

# The limit for the kernel's own interrupts (timer, calls from other CPUs) on an isolated CPU. With
# nohz_full= about one per second remains; without it, there are 100 to 1000.
_FEW_PER_SECOND = 10.0


def affinity(host: Host) -> Finding:
    """On which CPUs device interrupts may fire, and new ones by default."""
    directory = host.roots.proc / "irq"
    irqs = [name for name in files.names(directory) if name.isdecimal()]
    if not irqs:
        return unknown(f"{directory} lists no interrupts", HOST_PROC)
    fired = read(host)
    per_cpu = _per_cpu(host, irqs, fired)
    isolated_targets = {
        irq: _targets(host, irq, fired) & host.isolated
        for irq in sorted(irqs, key=int)
        if irq not in per_cpu
    }
    unused = _unused_queues(host, fired)
    found = [
        f"{irq}{_device(host, irq)} on CPU {render(cpus)}"
        for irq, cpus in isolated_targets.items()
        if cpus and irq not in unused
    ]
    if found:
        return warning(
            f"interrupts that may fire on isolated CPUs: {some(found)}",
            f"{advice.interrupts(host.housekeeping)}. If one cannot be moved, boot with the flag"
            " managed_irq in isolcpus=, or reduce the device's queues.",
        )
    default = _default_targets(host) & host.isolated
    if default:
        return warning(
            f"new device interrupts may fire on isolated CPU {render(default)} by default",
            f"Boot with {boot.irqaffinity(host.housekeeping)}",
        )
    own = sum(1 for irq, cpus in isolated_targets.items() if cpus and irq in unused)
    exception = f" except {own} of their own queues, which have never fired" if own else ""
    return ok(f"{len(irqs)} interrupts, none on isolated CPUs{exception}")


def counts(host: Host) -> Finding:
    """Which interrupts fire on isolated CPUs during the interval."""
    before = read(host)
    time.sleep(host.interval)
    return judge(host, before, read(host))


def judge(host: Host, before: Counts, after: Counts) -> Finding:
    """The finding from two readings, one interval apart."""
    if not after:
        return unknown("/proc/interrupts lists no interrupts", HOST_PROC)
    fired = {
        irq: {
            cpu: now - before.get(irq, {}).get(cpu, 0)
            for cpu, now in by_cpu.items()
            if cpu in host.isolated and now > before.get(irq, {}).get(cpu, 0)
        }
        for irq, by_cpu in after.items()
    }
    numbered = [irq for irq in after if irq.isdecimal()]
    devices = frozenset(numbered) - _per_cpu(host, numbered, after)
    found = [_counted(host, irq, fired[irq]) for irq in fired if fired[irq] and irq in devices]
    span = f"in {host.interval:g} s"
    if found:
        return problem(
            f"device interrupts fired on isolated CPUs {span}: {some(found)}",
            advice.interrupts(host.housekeeping),
        )
    own = {irq: by_cpu for irq, by_cpu in fired.items() if irq not in devices}
    busiest, most = _busiest(own)
    if most > _FEW_PER_SECOND * host.interval:
        frequent = sorted(own, key=lambda irq: -own[irq].get(busiest, 0))[:3]
        named = ", ".join(f"{irq} {own[irq][busiest]}" for irq in frequent if busiest in own[irq])
        return warning(
            f"kernel interrupts fired {most} times on CPU {busiest} {span}: {named}",
            f"For LOC (the timer): {advice.STOP_THE_TICK}. For CAL, TLB and RES (sent by other"
            f" CPUs): {advice.FIND_SHARED_MEMORY}.",
        )
    return ok(f"no device interrupts and at most {most} kernel interrupts per CPU {span}")


def irqbalance(host: Host) -> Finding:
    """Whether irqbalance is running and may move interrupts to isolated CPUs."""
    named = [thread for thread in host.user_threads if thread.name == "irqbalance"]
    pid = host.daemon("irqbalance", named)
    contained = [thread for thread in named if host.container(thread.pid)]
    if pid is None and contained:
        return unknown(
            f"a process named irqbalance runs in {host.container(contained[0].pid)}: the"
            " environment of a process in a container is not trusted",
            "If it moves interrupts of the host, configure it not to use isolated CPUs.",
        )
    if pid is None:
        return ok("irqbalance is not running")
    banned = _banned(daemons.environment(host.roots.proc, pid))
    if banned is None:
        return ok("irqbalance is running and skips isolated CPUs by default")
    if host.isolated - banned:
        return problem(
            f"irqbalance uses isolated CPU {render(host.isolated - banned)}: its list of banned"
            " CPUs does not contain it",
            f"Set {BANNED_LIST}={render(host.machine.isolated)} in its environment file"
            f" and remove {BANNED_MASK}, or remove both: irqbalance then skips isolated"
            " CPUs. Restart it: systemctl restart irqbalance",
        )
    return ok(f"irqbalance is running and is banned from CPU {render(banned)}")


def _banned(environment: Mapping[str, str]) -> frozenset[int] | None:
    """The CPUs that irqbalance must not use; None if its environment does not name any.

    If both variables are set, it uses the mask only.
    """
    if environment.get(BANNED_MASK):
        return cpulist.parse_mask(environment[BANNED_MASK])
    if environment.get(BANNED_LIST):
        return cpulist.parse(environment[BANNED_LIST])
    return None


def _targets(host: Host, irq: str, fired: Counts) -> frozenset[int]:
    """The CPUs on which an interrupt may fire; empty if no driver has requested it."""
    if not _device(host, irq):
        return frozenset()
    allowed = cpulist.parse(files.text(host.roots.proc / "irq" / irq / "smp_affinity_list"))
    effective = _effective(host, irq)
    if effective == frozenset() and irq in fired:
        # Its chip cannot direct it, as that of GPIOs, or it is not started. The allowed CPUs are
        # then only the default; where it fires is where it has fired.
        return _fired_on(fired, irq) & allowed
    # A kernel without effective affinities shows only the allowed CPUs. The effective CPU of an
    # interrupt that was moved is the old one until it fires once more.
    return (effective or frozenset()) & allowed or allowed


def _effective(host: Host, irq: str) -> frozenset[int] | None:
    """The CPUs to which the interrupt controller sends an interrupt; None if the kernel lacks it.

    The controllers of x86, Arm and RISC-V send each interrupt to one CPU.
    """
    path = host.roots.proc / "irq" / irq / "effective_affinity_list"
    return cpulist.parse(files.text(path)) if path.exists() else None


def _fired_on(fired: Counts, irq: str) -> frozenset[int]:
    return frozenset(cpu for cpu, times in fired[irq].items() if times)


def _unused_queues(host: Host, fired: Counts) -> frozenset[str]:
    """Interrupts that only an isolated CPU's own use of a device can make fire.

    A driver that spreads its queues gives one to each CPU, and its interrupt cannot be moved. With
    managed_irq the kernel does not use such a queue until that CPU itself submits to it.
    """
    flags = host.arguments.get("isolcpus", ())
    if not any("managed_irq" in value.split(",") for value in flags):
        return frozenset()
    never = [irq for irq in fired if irq.isdecimal() and not _fired_on(fired, irq)]
    return frozenset(irq for irq in never if _only_isolated(host, irq))


def _only_isolated(host: Host, irq: str) -> bool:
    allowed = files.text(host.roots.proc / "irq" / irq / "smp_affinity_list")
    return cpulist.parse(allowed) <= host.machine.isolated


def _per_cpu(host: Host, irqs: Iterable[str], fired: Counts) -> frozenset[str]:
    """The interrupts of which every CPU has its own instance, such as a timer: these stay there.

    On x86 they have names. On other machines they have numbers, and are recognized by what they do:
    the kernel sends a device's interrupt to one CPU, its effective affinity. An interrupt that has
    no such CPU, and has fired on every one, is raised by each CPU for itself. So are then the
    others of the same chip that have no such CPU either.
    """
    undirected = {irq for irq in irqs if _is_undirected(host, irq)}
    online = host.machine.online
    on_all = {irq for irq in undirected if irq in fired and _fired_on(fired, irq) >= online}
    chips = {_chip(host, irq) for irq in on_all} - {""}
    same_chip = {irq for irq in undirected if _chip(host, irq) in chips}
    return frozenset(on_all | same_chip | {irq for irq in irqs if _is_private(host, irq)})


def _is_undirected(host: Host, irq: str) -> bool:
    """Whether the controller sends an interrupt to no CPU in particular.

    The kernel never sets the effective affinity of a per-CPU interrupt (irq_set_percpu_devid()).
    """
    effective = _effective(host, irq)
    return effective is not None and (not effective or effective >= host.machine.online)


def _is_private(host: Host, irq: str) -> bool:
    """Whether its number says that it is per CPU, also if it has fired on one CPU or on none.

    The GIC of Arm has those below 32 (GIC architecture: SGIs and PPIs). In a Xen guest each CPU has
    an interrupt of its own for each purpose, which has an effective CPU.
    """
    chip = _chip(host, irq)
    number = files.number(host.roots.sysfs / "kernel/irq" / irq / "hwirq")
    return chip == "xen-percpu" or (chip.startswith("GIC") and number is not None and number < 32)


def _chip(host: Host, irq: str) -> str:
    return files.text(host.roots.sysfs / "kernel/irq" / irq / "chip_name")


def _device(host: Host, irq: str) -> str:
    """The drivers' names for an interrupt, in brackets: each one is a directory."""
    directory = host.roots.proc / "irq" / irq
    actions = [name for name in files.names(directory) if (directory / name).is_dir()]
    return f" ({', '.join(actions)})" if actions else ""


def _default_targets(host: Host) -> frozenset[int]:
    mask = files.text(host.roots.proc / settings.INTERRUPTS.name)
    return cpulist.parse_mask(mask) if mask else frozenset()


def _counted(host: Host, irq: str, by_cpu: Mapping[int, int]) -> str:
    times = sum(by_cpu.values())
    return f"{irq}{_device(host, irq)} {times} times on CPU {render(by_cpu)}"


def _busiest(fired: Counts) -> tuple[int, int]:
    """The CPU with the most interrupts, and their number; 0 and 0 if there were none."""
    totals: dict[int, int] = {}
    for by_cpu in fired.values():
        for cpu, times in by_cpu.items():
            totals[cpu] = totals.get(cpu, 0) + times
    busiest = max(totals, key=lambda cpu: totals[cpu], default=0)
    return busiest, totals.get(busiest, 0)


def read(host: Host) -> Counts:
    """The counts in /proc/interrupts."""
    return interrupts.parse(files.lines(host.roots.proc / "interrupts"))
