"""Attribution: disturbances are put onto isolated CPUs, and `measure` names CPU and cause.

Only the cause is asserted: the times of an emulated machine mean nothing. A measurement has
disturbances of some kinds, each on a CPU of its own, and one CPU without any; it has few CPUs,
because an emulated one that computes slows down all others. The next turn has them on other CPUs.
CPU 7 is isolated but not in nohz_full=, so its timer tick is not stopped.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests.packages.build import as_made

from . import tracing
from .extent import times
from .guest import Guest
from .recipe import REALTIME, STOCK, Recipe

# All CPUs of the guest are busy: beside another guest, it has not enough time.
pytestmark = pytest.mark.alone

HERE = Path(__file__).parent

TICKING = 7
# The kinds of each measurement of a turn.
GROUPS = (("thread", "ipi", "none"), ("device", "work", "tick"))
SERIAL = 4  # the interrupt of the first serial port, which is the guest's console

# In each of these turns one CPU has no disturbance; in the others only CPU 7 has one. In ten turns
# each CPU has each disturbance twice.
DISTURBED = times(1, full=10)
QUIET = 1

# oslat for the CPU in the file gets a second thread, which runs on a housekeeping CPU.
OSLAT = """\
#!/bin/sh
case " $* " in
*" $(cat /root/interrupted) "*) export LD_PRELOAD=/mnt/files/unmap.so UNMAP_ON=1 ;;
esac
exec /usr/bin/oslat "$@"
"""

# A program for each disturbance; its argument is the CPU. None of them starts processes, which is
# slow on emulated CPUs.
PROGRAMS = {
    # A thread that is pinned to the CPU.
    "thread": """\
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    sum(range(10000))
    time.sleep(0.005)
""",
    # Output to the serial port, whose interrupt is moved to the CPU.
    "device": f"""\
import contextlib, os, pathlib, sys
interrupt = pathlib.Path("/proc/irq/{SERIAL}")
port = os.open("/dev/ttyS0", os.O_WRONLY | os.O_NOCTTY)
while True:
    # The kernel refuses to move it while an earlier move has not ended.
    if (interrupt / "effective_affinity_list").read_text().strip() != sys.argv[1]:
        with contextlib.suppress(OSError):
            (interrupt / "smp_affinity_list").write_text(sys.argv[1])
    os.write(port, b"." * 63 + b"\\n")
""",
    # Pages are written to the disk by a worker of the kernel. Its CPUs are among those of all
    # workers.
    "work": """\
import os, pathlib, sys, time
queues = pathlib.Path("/sys/devices/virtual/workqueue")
(queues / "cpumask").write_text(f"{3 | 1 << int(sys.argv[1]):x}")
(queues / "writeback/cpumask").write_text(f"{1 << int(sys.argv[1]):x}")
file = os.open("/root/dirty", os.O_WRONLY | os.O_CREAT)
while True:
    os.pwrite(file, b"dirty", 0)
    os.sync()
    time.sleep(0.005)
""",
}


@pytest.fixture(
    scope="module", params=[STOCK, REALTIME], ids=[f"{one.name}" for one in (STOCK, REALTIME)]
)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    chosen: Recipe = request.param
    return chosen


@pytest.fixture(scope="module")
def arguments() -> str:
    return "isolcpus=domain,managed_irq,2-7 nohz_full=2-6 rcu_nocbs=2-7 irqaffinity=0-1 nowatchdog"


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    library = tmp_path_factory.mktemp("library") / "unmap.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-pthread", "-o", str(library)]
    subprocess.run([*command, str(HERE / "unmap.c")], check=True)
    return [*as_made(), library]


@pytest.fixture(scope="module")
def host(guest: Guest) -> Guest:
    """A guest with the package, and with nothing on its isolated CPUs that is not put there."""
    guest.run(
        "apt-get install --yes --no-install-recommends /mnt/files/isolcpus-dp_*_all.deb\n"
        "systemctl disable --now isolcpus-dp isolcpus-dp-kubelet.path\n"
        # Kernel threads that choose their CPUs themselves, of which check tells.
        "for name in kswapd kcompactd; do\n"
        "    for pid in $(pgrep $name); do taskset -pc 0-1 $pid; done\n"
        "done\n"
        f"cat > /usr/local/bin/oslat <<'END'\n{OSLAT}END\n"
        "chmod 755 /usr/local/bin/oslat; echo none > /root/interrupted",
        timeout=600,
    )
    tracing.keep_tracepoints_on(guest)
    return guest


def measured(guest: Guest, cpus: Iterable[int]) -> dict[int, str]:
    """The kind of cause by CPU; prints what was measured, in case that it is not as expected.

    Emulation itself stops CPUs, which looks like hardware.
    """
    listed = ",".join(map(str, sorted(cpus)))
    command = f"isolcpus-dp measure --cpus {listed} --duration 3s --json"
    found = json.loads(guest.run(command, timeout=120).stdout)["cpus"]
    for one in found:
        print(one["cpu"], one["cause"]["words"], one["activity"])
    causes = {one["cpu"]: one["cause"]["kind"] for one in found}
    return {cpu: "none" if kind == "hardware" else kind for cpu, kind in causes.items()}


def disturb(guest: Guest, cpus: dict[str, int]) -> None:
    """Puts each kind of disturbance onto its CPU."""
    for kind in cpus.keys() & PROGRAMS.keys():
        guest.run(
            f"cat > /root/{kind} <<'END'\n{PROGRAMS[kind]}END\n"
            # They leave more than half of the housekeeping CPUs to the command.
            f"systemd-run --quiet --collect --property=CPUWeight=30 --unit={kind}"
            f" python3 /root/{kind} {cpus[kind]}"
        )
    guest.run(f"echo {cpus.get('ipi', 'none')} > /root/interrupted")


def stop(guest: Guest) -> None:
    guest.run(
        f"systemctl stop {' '.join(PROGRAMS)}; echo none > /root/interrupted\n"
        f"echo 0 > /proc/irq/{SERIAL}/smp_affinity_list\n"
        "echo 3 > /sys/devices/virtual/workqueue/writeback/cpumask\n"
        "echo 3 > /sys/devices/virtual/workqueue/cpumask"
    )


@pytest.mark.parametrize("turn", range(DISTURBED))
def test_each_disturbance_is_attributed(host: Guest, turn: int) -> None:
    for group in GROUPS:
        cpus = {kind: 2 + (turn + place) % 5 for place, kind in enumerate(group)}
        if "tick" in cpus:
            cpus["tick"] = TICKING
        disturb(host, cpus)
        try:
            found = measured(host, cpus.values())
        finally:
            stop(host)
        assert found == {cpu: kind for kind, cpu in cpus.items()}


@pytest.mark.parametrize("turn", range(QUIET))
def test_quiet_cpus_have_no_cause(host: Guest, turn: int) -> None:
    found = measured(host, {2 + turn % 5, 3 + turn % 4, TICKING})
    assert found.pop(TICKING) == "tick"
    assert set(found.values()) == {"none"}


def test_nothing_of_the_measurement_remains(host: Guest) -> None:
    assert host.run(f"ls {tracing.INSTANCES}").stdout == "first\nsecond\n"
    assert host.run("ls /run | grep isolcpus-dp-measure | grep -v lock || true").stdout == ""
    assert host.run("pgrep oslat || true").stdout == ""


def test_killed_measurement_is_cleaned_up_by_the_next_one(host: Guest) -> None:
    options = "/sys/kernel/tracing/osnoise/options"
    before = host.run(f"cat {options}", check=False).stdout
    host.run(
        "isolcpus-dp measure --cpus 2-3 --duration 60s > /root/killed 2>&1 < /dev/null &\n"
        f"until pgrep -x oslat && test -d {tracing.INSTANCES}/isolcpus-dp-measure\n"
        "do sleep 0.2; done\n"
        "sleep 2; kill -KILL $!; wait $!; true",
        timeout=90,
    )
    host.wait_until("! pgrep -x oslat")  # no loop outlives the command
    assert "isolcpus-dp-measure" in host.run(f"ls {tracing.INSTANCES}").stdout
    host.run("isolcpus-dp measure --cpus 2 --duration 1s", timeout=90)
    assert host.run(f"ls {tracing.INSTANCES}").stdout == "first\nsecond\n"
    assert host.run(f"cat {options}", check=False).stdout == before
