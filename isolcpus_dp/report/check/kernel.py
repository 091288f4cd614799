"""Whether the kernel was told to isolate these CPUs, whole cores of them, and did so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# The threads that run the RCU callbacks of an offloaded CPU: rcuop/2, rcuos/2, rcuob/2.
_OFFLOADED = re.compile(r"rcuo[bps]/([0-9]+)")


def arguments(host: Host) -> Finding:
    """isolcpus= on the command line, its flags, and what sysfs says is isolated."""
    isolated = host.machine.isolated
    # The kernel goes by the first of several that differ.
    said = host.arguments.get("isolcpus", ("",))[0]
    if not isolated:
        return problem(
            f"no CPU is isolated; the kernel's command line has {_quoted('isolcpus', said)}",
            "Boot with isolcpus=nohz,domain,managed_irq,LIST on the kernel's command line.",
        )
    if not said:
        return warning(
            f"CPU {render(isolated)} is isolated, but isolcpus= is not on the command line",
            "Boot with isolcpus=nohz,domain,managed_irq,LIST: what else isolates may undo it.",
        )
    flags, text = _isolcpus(said)
    try:
        wanted = _configured(host, text)
    except cpulist.CpuListError as error:
        return problem(f"isolcpus={said}: {error}", "Give isolcpus= a CPU list.")
    present = host.machine.present
    if wanted & present != isolated & present:
        return problem(
            f"isolcpus={said}, but sysfs has CPU {render(isolated)} isolated",
            "See what the kernel said of it (dmesg | grep -i housekeeping), and mend isolcpus=.",
        )
    if "managed_irq" not in flags:
        return warning(
            f"isolcpus={said} lacks the flag managed_irq: drivers may put the interrupts of their"
            " queues on isolated CPUs",
            f"Boot with isolcpus=nohz,domain,managed_irq,{text}",
        )
    return ok(f"isolcpus={said}")


def nohz_full(host: Host) -> Finding:
    """nohz_full= on the command line, and which CPUs sysfs says can do without the tick."""
    said = host.arguments.get("nohz_full", ("",))[0]
    full = _nohz_full(host)
    try:
        wanted = _configured(host, said) & host.machine.present
    except cpulist.CpuListError as error:
        return problem(f"nohz_full={said}: {error}", "Give nohz_full= a CPU list.")
    if wanted - full:
        return problem(
            f"nohz_full={said}, but the kernel ticks on CPU {render(wanted - full)}",
            "Use a kernel with CONFIG_NO_HZ_FULL, and name the same CPUs in isolcpus=.",
        )
    isolated = host.machine.isolated & host.machine.present
    if isolated - full:
        return warning(
            f"the tick interrupts CPU {render(isolated - full)} while somebody runs there",
            f"Boot with nohz_full={render(isolated)}",
        )
    return ok(f"nohz_full is CPU {render(full) or '(none)'}")


def rcu_nocbs(host: Host) -> Finding:
    """rcu_nocbs= and nohz_full=, and the threads that take RCU's work off these CPUs."""
    said = host.arguments.get("rcu_nocbs", ("",))[-1]
    try:
        # Without a list it prepares all CPUs, but offloads none.
        wanted = (_configured(host, said) | _nohz_full(host)) & host.machine.present
    except cpulist.CpuListError as error:
        return problem(f"rcu_nocbs={said}: {error}", "Give rcu_nocbs= a CPU list.")
    isolated = host.machine.isolated & host.machine.present
    if isolated - wanted:
        return warning(
            f"RCU runs its callbacks on CPU {render(isolated - wanted)} itself",
            f"Boot with rcu_nocbs={render(isolated)}, or with nohz_full=, which implies it.",
        )
    lacking = (wanted & host.isolated) - _offloaded(host)
    if lacking:
        return problem(
            f"no thread takes RCU's callbacks off CPU {render(lacking)}",
            "Use a kernel with CONFIG_RCU_NOCB_CPU.",
        )
    return ok(f"RCU's callbacks are taken off CPU {render(wanted) or '(none)'}")


def smt_siblings(host: Host) -> Finding:
    """Cores whose threads are isolated in part, or have different owners."""
    machine = host.machine
    cores = sorted({machine.cpus[cpu].siblings for cpu in host.isolated}, key=min)
    split = [core for core in cores if core & host.housekeeping]
    if split:
        shared = frozenset().union(*(core & host.housekeeping for core in split))
        isolated = frozenset().union(*split) - shared
        # CPU 0 is the kernel's, and a host needs CPUs for all that is not isolated.
        stays = 0 in shared or host.housekeeping <= shared
        return problem(
            f"core {some([render(core) for core in split])} is isolated in part",
            f"Boot without CPU {render(isolated)} in isolcpus=."
            if stays
            else f"Boot with CPU {render(shared)} in isolcpus=, too, or take it offline.",
        )
    owned = {} if host.snapshot.unseen else host.owned
    for core in cores:
        owners = sorted(name for name, cpus in owned.items() if cpus & core)
        if len(owners) > 1:
            return warning(
                f"core {render(core)} has more than one owner: {some(owners)}",
                "Hand out whole cores: Granularity=core, see isolcpus-dp.conf(5).",
            )
    return ok("isolated cores are isolated as a whole")


def _quoted(name: str, value: str) -> str:
    return f"{name}={value}" if value else f"no {name}="


def _isolcpus(said: str) -> tuple[frozenset[str], str]:
    """The flags and the list of isolcpus=; the kernel passes over flags that it does not know."""
    words = said.split(",")
    flags = []
    while words and re.fullmatch(r"[A-Za-z][A-Za-z_]*", words[0]):
        flags.append(words.pop(0))
    return frozenset(flags), ",".join(words)


def _configured(host: Host, text: str) -> frozenset[int]:
    """The CPUs of an argument. Lists beyond the last CPU are common, and fine with the kernel.

    Raises CpuListError.
    """
    relative = "N" in text or "all" in text.lower()
    return cpulist.parse_configured(text, host.machine.last if relative else cpulist.MOST_CPUS - 1)


def _nohz_full(host: Host) -> frozenset[int]:
    said = files.text(host.roots.sysfs / "devices/system/cpu/nohz_full")
    # A kernel that could, but was not told to, prints its null pointer.
    return frozenset() if said == "(null)" else cpulist.parse(said)


def _offloaded(host: Host) -> frozenset[int]:
    """The CPUs that have such threads. Raises Unseen."""
    matches = (_OFFLOADED.fullmatch(thread.name) for thread in host.kernel_threads)
    return frozenset(int(match[1]) for match in matches if match)
