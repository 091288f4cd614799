"""A local user without root cannot change what commands of root run, trust or overwrite."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath

import pytest

from isolcpus_dp.host import daemons, files, hotplug
from isolcpus_dp.plan import write
from isolcpus_dp.plan.part import MARK, File
from isolcpus_dp.report import status
from isolcpus_dp.report.check import processes, tasks
from isolcpus_dp.report.check.finding import Verdict

from .check.conftest import MadeUpHost
from .conftest import MakeUp

PR_SET_NAME = 15
NOBODY = 65534


def test_systemctl_of_a_users_path_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """su without - keeps the PATH of the user who ran it."""
    planted = tmp_path / "systemctl"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert subprocess.run(["systemctl"], check=True).returncode == 0
    assert (tmp_path / "ran").exists()
    (tmp_path / "ran").unlink()
    with suppress(OSError):  # this host may have no systemd
        status.show_unit("isolcpus-dp.service")
    assert not (tmp_path / "ran").exists()


@contextmanager
def process_named(name: bytes) -> Iterator[int]:
    """A process that is not root's and has given itself this name; its PID."""
    # It gives up root itself: another user may not be allowed to run this Python.
    program = (
        "import ctypes, os, sys\n"
        f"if os.geteuid() == 0: os.setresuid({NOBODY}, {NOBODY}, {NOBODY})\n"
        f"ctypes.CDLL(None).prctl({PR_SET_NAME}, {name!r})\n"
        "print('named', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "--config=/tmp/its.yaml"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"named\n"
        yield process.pid
        process.kill()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"kubelet", "kubelet"),
        (b"\nUid:\t0 0 0 0", "\\nUid:\t0 0 0 0"),
        (b"\nPPid:\t2", "\\nPPid:\t2"),
        (b"x) S 2 (y", "x) S 2 (y"),
    ],
)
def test_process_cannot_imitate_root_or_the_kernel(name: bytes, shown: str) -> None:
    with process_named(name) as pid:
        assert not daemons.is_trusted(Path("/proc"), pid)
        [thread] = [one for one in tasks.read(Path("/proc")) if one.pid == pid]
        assert (thread.name, thread.kernel) == (shown, False)
        assert thread.last_cpu in thread.allowed


FORGED_EVENT = """
import os, socket, sys
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
event = b"offline@/devices/system/cpu/cpu1\\0ACTION=offline\\0SUBSYSTEM=cpu\\0"
event += b"DEVPATH=/devices/system/cpu/cpu1\\0SEQNUM=1\\0"
sender = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)
for address in ((int(sys.argv[1]), 0), (int(sys.argv[1]), 1), (0, 1)):
    try:
        sender.sendto(event, address)
    except OSError:
        print("refused")
"""


def port_of_uevents() -> int:
    """The address of this process's socket for uevents, from /proc/net/netlink."""
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    held = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()[1:]]
    [port] = [int(row[2]) for row in rows if row[1] == "15" and row[-1] in held]
    return port


async def test_forged_cpu_event_is_refused() -> None:
    """A user who is not root of the network namespace cannot send uevents."""
    events: list[None] = []
    with ExitStack() as stack:
        try:
            stack.enter_context(hotplug.watch(Path("/sys"), lambda: events.append(None)))
            port = port_of_uevents()
        except (OSError, ValueError) as error:
            pytest.skip(f"this host has no uevents: {error}")
        command = [sys.executable, "-c", FORGED_EVENT, str(port)]
        sent = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
        await asyncio.sleep(0)  # the event loop reads what has arrived
    assert (sent.stderr, sent.stdout) == ("", "refused\n" * 3)
    assert events == []


def sandbox(make_up: MakeUp, tmp_path: Path, ticks: int) -> MadeUpHost:
    """A host with a process named pause in a container without a log link."""
    host = MadeUpHost(make_up("1x4x2", {2, 3, 6, 7}), tmp_path)
    host.process(100, "pause", "0-7", ran_on=2)
    host.contains(100, "c", None)
    fields = ["S", "1", "1", "1", "0", "-1", *["0"] * 5, str(ticks - 40), "40", *["0"] * 23, "2"]
    host.proc("100/stat", f"100 (pause) {' '.join(fields)}")
    return host


def test_container_named_pause_is_reported_if_it_works(make_up: MakeUp, tmp_path: Path) -> None:
    """The kubelet cuts the id off the log link of a pod whose name is too long."""
    found = processes.foreign(sandbox(make_up, tmp_path, 100).host())
    assert (found.verdict, found.evidence) == (
        Verdict.PROBLEM,
        "ran on isolated CPUs: pause (process 100) in container cccccccccccc, allowed on CPU"
        " 2-3,6-7",
    )


def test_sandbox_that_only_sleeps_is_ignored(make_up: MakeUp, tmp_path: Path) -> None:
    found = processes.foreign(sandbox(make_up, tmp_path, 99).host())
    assert found.verdict is Verdict.OK


def test_link_in_place_of_a_plans_temporary_file_is_kept(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    victim.write_text("precious\n")
    (root / "etc/a.d").mkdir(parents=True)
    link = root / f"etc/a.d/.90-isolcpus-dp.conf.isolcpus-dp-{os.getpid()}"
    link.symlink_to(victim)
    file = File(PurePosixPath("/etc/a.d/90-isolcpus-dp.conf"), f"# {MARK}\na=1\n")
    with pytest.raises(write.WriteError, match="File exists"):
        write.write([file], root)
    assert victim.read_text() == "precious\n"
    assert not (root / "etc/a.d/90-isolcpus-dp.conf").exists()


def test_file_that_users_can_make_grow_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "interrupts").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(files.Unseen, match=r"interrupts is not read: it has more than 64 MiB$"):
        files.lines(tmp_path / "interrupts")
