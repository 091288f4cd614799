"""Whether the kernel's arguments isolate CPUs, took effect, and isolate whole cores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist
from isolcpus_dp.host.cpulist import render
from isolcpus_dp.report.check import advice, boot, files
from isolcpus_dp.report.check.finding import Finding, ok, problem, some, warning

if TYPE_CHECKING:
    from isolcpus_dp.report.check.host import Host

# The names of the threads that run an offloaded CPU's RCU callbacks: rcuop/2, rcuos/2, rcuob/2.
_OFFLOADED = re.compile(r"rcuo[bps]/([0-9]+)")


def arguments(host: Host) -> Finding:
    """isolcpus= on the kernel command line and its flags, compared with sysfs.

    It may be given several times: flags accumulate, as long as all name the same CPUs. One that
    names others is ignored before Linux 5.18, and later if it shares a flag with an earlier one
    (housekeeping_setup() in kernel/sched/isolation.c). One without a CPU or with an invalid flag
    is ignored, too.
    """
    isolated = host.machine.isolated
    values = [value for value in host.arguments.get("isolcpus", ()) if value]
    quoted = " ".join(f"isolcpus={value}" for value in values)
    if not isolated:
        return problem(
            f"no CPU is isolated; the kernel command line has {quoted or 'no isolcpus='}",
            f"Boot with {boot.isolcpus_as('LIST')} on the kernel command line.",
        )
    if not values:
        return warning(
            f"CPU {render(isolated)} is isolated, but isolcpus= is not on the kernel command line",
            f"Boot with {boot.isolcpus(isolated)}: any other isolation"
            " can be undone while the host runs.",
        )
    flags, lists = frozenset[str](), list[frozenset[int]]()
    for value in values:
        its_flags, text = _isolcpus(value)
        try:
            lists.append(_isolable(host, _configured(host, text)))
        except cpulist.CpuListError as error:
            return problem(
                f"isolcpus={value}: {error}",
                "Set isolcpus= to a CPU list such as 2-3,6-7 and reboot.",
            )
        flags |= its_flags
    present = host.machine.present
    if lists[0] & present != isolated & present:
        return problem(
            f"{quoted}, but sysfs reports CPU {render(isolated)} as isolated",
            "Find the reason in the kernel's log (dmesg | grep -i housekeeping), correct isolcpus=,"
            " and reboot.",
        )
    for value, wanted in zip(values, lists):
        if wanted != lists[0]:
            return warning(
                f"isolcpus={value} names other CPUs than isolcpus={values[0]} before it: the kernel"
                " may ignore it",
                f"Boot with a single {boot.isolcpus(isolated)}",
            )
    if "managed_irq" not in flags:
        return warning(
            f"{quoted} lacks the flag managed_irq: drivers may assign the interrupts of"
            " their queues to isolated CPUs",
            f"Boot with {boot.isolcpus_as(_isolcpus(values[0])[1])}",
        )
    return ok(quoted)


def nohz_full(host: Host) -> Finding:
    """nohz_full= on the kernel command line, compared with sysfs.

    The boot CPU keeps its timer tick whatever the list says: it keeps the time for the others
    (tick_nohz_init() in kernel/time/tick-sched.c).
    """
    value = host.arguments.get("nohz_full", ("",))[0]
    full = _nohz_full(host)
    try:
        wanted = _configured(host, value) & host.machine.present
    except cpulist.CpuListError as error:
        return problem(
            f"nohz_full={value}: {error}",
            "Set nohz_full= to a CPU list such as 2-3,6-7 and reboot.",
        )
    if wanted - full - boot.BOOT_CPU:
        return problem(
            f"nohz_full={value}, but the timer tick runs on CPU {render(wanted - full)}",
            "Boot a kernel that has CONFIG_NO_HZ_FULL, and list the same CPUs in isolcpus=.",
        )
    isolated = host.machine.isolated & host.machine.present
    ticking = isolated - full
    if ticking == boot.BOOT_CPU:
        return warning(
            "the timer tick interrupts processes on CPU 0: the kernel never stops it on the boot"
            " CPU",
            advice.tick_of_the_boot_cpu(isolated),
        )
    if ticking:
        return warning(
            f"the timer tick interrupts processes on CPU {render(ticking)}",
            advice.nohz_full(isolated),
        )
    return ok(f"nohz_full applies to CPU {render(full) or '(none)'}")


def rcu_nocbs(host: Host) -> Finding:
    """rcu_nocbs= and nohz_full=, compared with the threads that run the offloaded callbacks."""
    value = host.arguments.get("rcu_nocbs", ("",))[-1]
    try:
        # Without a list, rcu_nocbs prepares all CPUs and offloads none.
        wanted = (_configured(host, value) | _nohz_full(host)) & host.machine.present
    except cpulist.CpuListError as error:
        return problem(
            f"rcu_nocbs={value}: {error}",
            "Set rcu_nocbs= to a CPU list such as 2-3,6-7 and reboot.",
        )
    isolated = host.machine.isolated & host.machine.present
    if isolated - wanted:
        return warning(
            f"RCU callbacks run on isolated CPU {render(isolated - wanted)}",
            advice.rcu_nocbs(isolated),
        )
    missing = (wanted & host.isolated) - _offloaded(host)
    if missing:
        return problem(
            f"RCU callbacks of CPU {render(missing)} are not offloaded: it has no rcuo thread",
            "Boot a kernel that has CONFIG_RCU_NOCB_CPU.",
        )
    return ok(f"RCU callbacks are offloaded from CPU {render(wanted) or '(none)'}")


def smt_siblings(host: Host) -> Finding:
    """Cores of which only some threads are isolated, or whose threads have different owners."""
    machine = host.machine
    cores = sorted({machine.cpus[cpu].siblings for cpu in host.isolated}, key=min)
    split = [core for core in cores if core & host.housekeeping]
    if split:
        shared = frozenset().union(*(core & host.housekeeping for core in split))
        isolated = frozenset().union(*split) - shared
        # The kernel needs CPU 0, and a host needs a housekeeping CPU.
        must_stay = 0 in shared or host.housekeeping <= shared
        return problem(
            f"core {some([render(core) for core in split])} is only partly isolated",
            f"Remove CPU {render(isolated)} from isolcpus= and reboot."
            if must_stay
            else f"Add CPU {render(shared)} to isolcpus= and reboot, or take it offline.",
        )
    owned = {} if host.snapshot.unseen else host.owned
    for core in cores:
        owners = sorted(name for name, cpus in owned.items() if cpus & core)
        if len(owners) > 1:
            return warning(
                f"core {render(core)} has more than one owner: {some(owners)}",
                "Set Granularity=core to allocate whole cores, see isolcpus-dp.conf(5).",
            )
    return ok("all threads of the isolated cores are isolated")


def _isolcpus(value: str) -> tuple[frozenset[str], str]:
    """The flags and the CPU list of isolcpus=; the kernel skips flags that it does not know."""
    words = value.split(",")
    flags = []
    while words and re.fullmatch(r"[A-Za-z][A-Za-z_]*", words[0]):
        flags.append(words.pop(0))
    return frozenset(flags), ",".join(words)


def _configured(host: Host, text: str) -> frozenset[int]:
    """The CPUs of a kernel argument, which may exceed the last CPU: the kernel accepts that.

    Raises CpuListError.
    """
    relative = "N" in text or "all" in text.lower()
    return cpulist.parse_argument(text, host.machine.last if relative else cpulist.MOST_CPUS - 1)


def _isolable(host: Host, cpus: frozenset[int]) -> frozenset[int]:
    """Which of these CPUs the kernel isolates: if no present CPU is left, all but the boot CPU."""
    cpus &= host.machine.possible
    return cpus if host.machine.present - cpus else cpus - boot.BOOT_CPU


def _nohz_full(host: Host) -> frozenset[int]:
    """The CPUs that sysfs lists in nohz_full."""
    text = files.text(host.roots.sysfs / "devices/system/cpu/nohz_full")
    # A kernel that has CONFIG_NO_HZ_FULL but was given no list prints its null pointer.
    return frozenset() if text == "(null)" else cpulist.parse(text)


def _offloaded(host: Host) -> frozenset[int]:
    """The CPUs whose RCU callbacks run in threads of their own. Raises Unseen."""
    matches = (_OFFLOADED.fullmatch(thread.name) for thread in host.kernel_threads)
    return frozenset(int(match[1]) for match in matches if match)
