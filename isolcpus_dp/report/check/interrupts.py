"""Which interrupts may fire on isolated CPUs, and which fired there."""

from __future__ import annotations

import time
from collections.abc import Mapping

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning
from isolcpus_dp.report.check.host import HOST_PROC, Host

# The limit for the kernel's own interrupts (timer, calls from other CPUs) on an isolated CPU. With
# nohz_full= about one per second remains; without it, there are 100 to 1000.
_FEW_PER_SECOND = 10.0

# How often each interrupt has fired: by interrupt, then by CPU.
Counts = Mapping[str, Mapping[int, int]]


def affinity(host: Host) -> Finding:
    """On which CPUs device interrupts may fire, and new ones by default."""
    directory = host.roots.proc / "irq"
    irqs = [name for name in files.names(directory) if name.isdecimal()]
    if not irqs:
        return unknown(f"{directory} lists no interrupts", HOST_PROC)
    isolated_targets = {irq: _targets(host, irq) & host.isolated for irq in sorted(irqs, key=int)}
    unused = _unused_queues(host)
    found = [
        f"{irq}{_device(host, irq)} on CPU {render(cpus)}"
        for irq, cpus in isolated_targets.items()
        if cpus and irq not in unused and not _is_per_cpu(host, irq)
    ]
    if found:
        return warning(
            f"interrupts that may fire on isolated CPUs: {some(found)}",
            f"Move each: echo {render(host.housekeeping)} > /proc/irq/NUMBER/smp_affinity_list. If"
            " one cannot be moved, boot with the flag managed_irq in isolcpus=, or reduce the"
            " device's queues.",
        )
    default = _default_targets(host) & host.isolated
    if default:
        return warning(
            f"new device interrupts may fire on isolated CPU {render(default)} by default",
            f"Boot with irqaffinity={render(host.housekeeping)}",
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
    devices = {irq for irq in fired if irq.isdecimal() and not _is_per_cpu(host, irq)}
    found = [_counted(host, irq, fired[irq]) for irq in fired if fired[irq] and irq in devices]
    span = f"in {host.interval:g} s"
    if found:
        return problem(
            f"device interrupts fired on isolated CPUs {span}: {some(found)}",
            f"Move each: echo {render(host.housekeeping)} > /proc/irq/NUMBER/smp_affinity_list",
        )
    own = {irq: by_cpu for irq, by_cpu in fired.items() if irq not in devices}
    busiest, most = _busiest(own)
    if most > _FEW_PER_SECOND * host.interval:
        frequent = sorted(own, key=lambda irq: -own[irq].get(busiest, 0))[:3]
        named = ", ".join(f"{irq} {own[irq][busiest]}" for irq in frequent if busiest in own[irq])
        return warning(
            f"kernel interrupts fired {most} times on CPU {busiest} {span}: {named}",
            "For LOC (the timer): boot with nohz_full=, which stops it on a CPU where one thread"
            " runs. For CAL, TLB and RES (sent by other CPUs): find what shares memory with the"
            " owner.",
        )
    return ok(f"no device interrupts and at most {most} kernel interrupts per CPU {span}")


def irqbalance(host: Host) -> Finding:
    """Whether irqbalance is running and may move interrupts to isolated CPUs."""
    named = [thread for thread in host.user_threads if thread.name == "irqbalance"]
    pid = host.daemon("irqbalance", named)
    if pid is None and named:
        return unknown(
            f"a process named irqbalance runs in {host.container(named[0].pid)}: the environment of"
            " a process in a container is not trusted",
            "If it moves interrupts of the host, configure it not to use isolated CPUs.",
        )
    if pid is None:
        return ok("irqbalance is not running")
    variables = files.text(host.roots.proc / str(pid) / "environ").split("\0")
    environment = dict(variable.split("=", 1) for variable in variables if "=" in variable)
    banned = _banned(environment)
    if banned is None:
        return ok("irqbalance is running and skips isolated CPUs by default")
    if host.isolated - banned:
        return problem(
            f"irqbalance uses isolated CPU {render(host.isolated - banned)}: its list of banned"
            " CPUs does not contain it",
            f"Set IRQBALANCE_BANNED_CPULIST={render(host.machine.isolated)} in its environment file"
            " and remove IRQBALANCE_BANNED_CPUS, or remove both: irqbalance then skips isolated"
            " CPUs. Restart it: systemctl restart irqbalance",
        )
    return ok(f"irqbalance is running and is banned from CPU {render(banned)}")


def _banned(environment: Mapping[str, str]) -> frozenset[int] | None:
    """The CPUs that irqbalance must not use; None if its environment does not name any.

    If both variables are set, it uses the mask only (setup_banned_cpus() in its irqbalance.c).
    """
    if environment.get("IRQBALANCE_BANNED_CPUS"):
        return cpulist.parse_mask(environment["IRQBALANCE_BANNED_CPUS"])
    if environment.get("IRQBALANCE_BANNED_CPULIST"):
        return cpulist.parse(environment["IRQBALANCE_BANNED_CPULIST"])
    return None


def _targets(host: Host, irq: str) -> frozenset[int]:
    """The CPUs on which an interrupt may fire; empty if no driver has requested it."""
    if not _device(host, irq):
        return frozenset()
    directory = host.roots.proc / "irq" / irq
    allowed = cpulist.parse(files.text(directory / "smp_affinity_list"))
    # A kernel without effective affinities shows only the allowed CPUs. The effective CPU of an
    # interrupt that was moved is the old one until it fires once more.
    effective = cpulist.parse(files.text(directory / "effective_affinity_list"))
    return effective & allowed or allowed


def _unused_queues(host: Host) -> frozenset[str]:
    """Interrupts that only an isolated CPU's own use of a device can make fire.

    A driver that spreads its queues gives one to each CPU, and its interrupt cannot be moved. With
    managed_irq the kernel does not use such a queue until that CPU itself submits to it.
    """
    flags = host.arguments.get("isolcpus", ())
    if not any("managed_irq" in value.split(",") for value in flags):
        return frozenset()
    lines = map(str.split, files.text(host.roots.proc / "interrupts").splitlines()[1:])
    counted = len(host.machine.online)
    never = {
        words[0].rstrip(":")
        for words in lines
        if len(words) > counted and not any(word != "0" for word in words[1 : counted + 1])
    }
    return frozenset(irq for irq in never if irq.isdecimal() and _only_isolated(host, irq))


def _only_isolated(host: Host, irq: str) -> bool:
    allowed = files.text(host.roots.proc / "irq" / irq / "smp_affinity_list")
    return cpulist.parse(allowed) <= host.machine.isolated


def _is_per_cpu(host: Host, irq: str) -> bool:
    """Whether every CPU has its own instance, such as a timer, which cannot be moved.

    On x86 these have names. On Arm they have numbers, below 32 at the interrupt controller (GIC
    architecture: SGIs and PPIs); in a Xen guest they have numbers as well.
    """
    directory = host.roots.sysfs / "kernel/irq" / irq
    chip = files.text(directory / "chip_name")
    number = files.number(directory / "hwirq")
    return chip == "xen-percpu" or (chip.startswith("GIC") and number is not None and number < 32)


def _device(host: Host, irq: str) -> str:
    """The drivers' names for an interrupt, in brackets: each one is a directory."""
    directory = host.roots.proc / "irq" / irq
    actions = [name for name in files.names(directory) if (directory / name).is_dir()]
    return f" ({', '.join(actions)})" if actions else ""


def _default_targets(host: Host) -> frozenset[int]:
    mask = files.text(host.roots.proc / "irq/default_smp_affinity")
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
    """The counts in /proc/interrupts on isolated CPUs.

    Its first line lists the online CPUs; each further line is an interrupt.
    """
    headline, *lines = files.text(host.roots.proc / "interrupts").splitlines() or [""]
    cpus = [int(word[3:]) for word in headline.split() if word[3:].isdecimal()]
    return {
        words[0].rstrip(":"): {
            cpu: int(word)
            for cpu, word in zip(cpus, words[1:])
            if word.isdecimal() and cpu in host.isolated
        }
        for words in map(str.split, lines)
        # ERR and MIS have one count for all CPUs.
        if len(words) > len(cpus)
    }
