"""Which interrupts may fire on isolated CPUs, and which did."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, unknown, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# Of the kernel's own interrupts (timer, calls from other CPUs), on each isolated CPU. With
# nohz_full about one a second is left; without it, there are 100 to 1000.
_FEW_PER_SECOND = 10.0

# By interrupt, then by CPU.
Counts = Mapping[str, Mapping[int, int]]


def affinity(host: Host) -> Finding:
    """Where the interrupts of devices go, and where new ones will."""
    folder = host.roots.proc / "irq"
    irqs = [name for name in files.names(folder) if name.isdecimal()]
    if not irqs:
        return unknown(f"{folder} shows no interrupt", "Look where /proc is the host's.")
    on = {irq: _goes_to(host, irq) & host.isolated for irq in sorted(irqs, key=int)}
    asleep = _asleep(host)
    found = [
        f"{irq}{_device(host, irq)} on CPU {render(cpus)}"
        for irq, cpus in on.items()
        if cpus and irq not in asleep and not _of_one_cpu(host, irq)
    ]
    if found:
        return warning(
            f"interrupts that may fire on isolated CPUs: {some(found)}",
            f"Move each: echo {render(host.housekeeping)} > /proc/irq/NUMBER/smp_affinity_list;"
            " those that cannot be moved need isolcpus=managed_irq, or fewer queues.",
        )
    new = _new_go_to(host) & host.isolated
    if new:
        return warning(
            f"interrupts of devices that are still to come may go to CPU {render(new)}",
            f"Boot with irqaffinity={render(host.housekeeping)}",
        )
    own = sum(1 for irq, cpus in on.items() if cpus and irq in asleep)
    but = f" but {own} of their own queues, which have never fired" if own else ""
    return ok(f"{len(irqs)} interrupts, none on isolated CPUs{but}")


def counts(host: Host) -> Finding:
    """What /proc/interrupts counts on isolated CPUs within the interval."""
    before = read(host)
    time.sleep(host.interval)
    return judge(host, before, read(host))


def judge(host: Host, before: Counts, after: Counts) -> Finding:
    """What two readings, an interval apart, come to."""
    if not after:
        return unknown("/proc/interrupts counts nothing", "Look where /proc is the host's.")
    fired = {
        irq: {
            cpu: now - before.get(irq, {}).get(cpu, 0)
            for cpu, now in by_cpu.items()
            if cpu in host.isolated and now > before.get(irq, {}).get(cpu, 0)
        }
        for irq, by_cpu in after.items()
    }
    devices = {irq for irq in fired if irq.isdecimal() and not _of_one_cpu(host, irq)}
    found = [_told(host, irq, fired[irq]) for irq in fired if fired[irq] and irq in devices]
    span = f"in {host.interval:g} s"
    if found:
        return problem(
            f"interrupts of devices fired on isolated CPUs {span}: {some(found)}",
            f"Move each: echo {render(host.housekeeping)} > /proc/irq/NUMBER/smp_affinity_list",
        )
    own = {irq: by_cpu for irq, by_cpu in fired.items() if irq not in devices}
    busiest, most = _busiest(own)
    if most > _FEW_PER_SECOND * host.interval:
        by = sorted(own, key=lambda irq: -own[irq].get(busiest, 0))
        named = ", ".join(f"{irq} {own[irq][busiest]}" for irq in by[:3] if busiest in own[irq])
        return warning(
            f"the kernel interrupted CPU {busiest} {most} times {span}: {named}",
            "LOC is the timer: nohz_full= stops it where one thread runs. CAL, TLB and RES come"
            " from other CPUs: see what shares memory with the owner.",
        )
    return ok(f"no interrupt of a device, at most {most} of the kernel on a CPU, {span}")


def irqbalance(host: Host) -> Finding:
    """Whether irqbalance runs, and whether it was told other CPUs than the isolated ones."""
    named = [thread for thread in host.user_threads if thread.name == "irqbalance"]
    pid = host.daemon("irqbalance", named)
    if pid is None and named:
        return unknown(
            f"in {host.container(named[0].pid)} something calls itself irqbalance: who is in a"
            " container is not asked what it was told",
            "If it is meant to move interrupts, see that it leaves isolated CPUs alone.",
        )
    if pid is None:
        return ok("irqbalance does not run")
    said = files.text(host.roots.proc / str(pid) / "environ").split("\0")
    environment = dict(word.split("=", 1) for word in said if "=" in word)
    banned = _banned(environment)
    if banned is None:
        return ok("irqbalance runs, and leaves isolated CPUs alone by itself")
    if host.isolated - banned:
        return problem(
            f"irqbalance was told its CPUs, and uses isolated CPU {render(host.isolated - banned)}",
            f"Say IRQBALANCE_BANNED_CPULIST={render(host.machine.isolated)} in its environment"
            " file, without any IRQBALANCE_BANNED_CPUS; or say nothing: then it leaves isolated"
            " CPUs alone.",
        )
    return ok(f"irqbalance runs, and is banned from CPU {render(banned)}")


def _banned(environment: Mapping[str, str]) -> frozenset[int] | None:
    """The CPUs that irqbalance was told to leave alone; None if it was told nothing.

    Where there are both, it looks at the mask alone (setup_banned_cpus() in its irqbalance.c).
    """
    if environment.get("IRQBALANCE_BANNED_CPUS"):
        return cpulist.parse_mask(environment["IRQBALANCE_BANNED_CPUS"])
    if environment.get("IRQBALANCE_BANNED_CPULIST"):
        return cpulist.parse(environment["IRQBALANCE_BANNED_CPULIST"])
    return None


def _goes_to(host: Host, irq: str) -> frozenset[int]:
    """Where an interrupt fires; nowhere if no driver has asked for it."""
    if not _device(host, irq):
        return frozenset()
    folder = host.roots.proc / "irq" / irq
    allowed = cpulist.parse(files.text(folder / "smp_affinity_list"))
    # A kernel without effective affinities tells only where it may fire. One that was moved is on
    # its old CPU until it fires there once more.
    effective = cpulist.parse(files.text(folder / "effective_affinity_list"))
    return effective & allowed or allowed


def _asleep(host: Host) -> frozenset[str]:
    """Interrupts that nothing but an isolated CPU's own use of a device will make fire.

    A driver that spreads its queues gives each CPU one, whose interrupt nobody can move. With
    managed_irq the kernel leaves such a queue alone, until that CPU itself submits to it.
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


def _of_one_cpu(host: Host, irq: str) -> bool:
    """Whether every CPU has such an interrupt of its own, such as a timer, that cannot be moved.

    On x86 they have names. Arm's have numbers, below 32 of its interrupt controller (GIC
    architecture: SGIs and PPIs); so have those of a guest of Xen.
    """
    folder = host.roots.sysfs / "kernel/irq" / irq
    chip = files.text(folder / "chip_name")
    number = files.number(folder / "hwirq")
    return chip == "xen-percpu" or (chip.startswith("GIC") and number is not None and number < 32)


def _device(host: Host, irq: str) -> str:
    """Who asked for an interrupt, in brackets: each has a folder of its name."""
    folder = host.roots.proc / "irq" / irq
    actions = [name for name in files.names(folder) if (folder / name).is_dir()]
    return f" ({', '.join(actions)})" if actions else ""


def _new_go_to(host: Host) -> frozenset[int]:
    said = files.text(host.roots.proc / "irq/default_smp_affinity")
    return cpulist.parse_mask(said) if said else frozenset()


def _told(host: Host, irq: str, by_cpu: Mapping[int, int]) -> str:
    times = sum(by_cpu.values())
    return f"{irq}{_device(host, irq)} {times} times on CPU {render(by_cpu)}"


def _busiest(fired: Counts) -> tuple[int, int]:
    """The CPU with the most interrupts, and how many; 0 and 0 if there were none."""
    of: dict[int, int] = {}
    for by_cpu in fired.values():
        for cpu, times in by_cpu.items():
            of[cpu] = of.get(cpu, 0) + times
    busiest = max(of, key=lambda cpu: of[cpu], default=0)
    return busiest, of.get(busiest, 0)


def read(host: Host) -> Counts:
    """/proc/interrupts: a headline of the online CPUs, a line for each interrupt."""
    headline, *lines = files.text(host.roots.proc / "interrupts").splitlines() or [""]
    cpus = [int(word[3:]) for word in headline.split() if word[3:].isdecimal()]
    return {
        words[0].rstrip(":"): {
            cpu: int(word)
            for cpu, word in zip(cpus, words[1:])
            if word.isdecimal() and cpu in host.isolated
        }
        for words in map(str.split, lines)
        # ERR and MIS are counted once for all CPUs.
        if len(words) > len(cpus)
    }
