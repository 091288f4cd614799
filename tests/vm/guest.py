"""A booted guest: run commands in it, wait for a condition, reboot it, read its journal."""

from __future__ import annotations

import itertools
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .disk import make_disk
from .image import Image
from .qemu import Lost, Qemu, running

# One core of each NUMA node belongs to the workload.
ISOLATED = "isolcpus=nohz,domain,managed_irq,2-3,6-7 nohz_full=2-3,6-7"

BOOT_SECONDS = 200.0  # several times what a busy host with two cores needs
GRACE_SECONDS = 30.0  # beyond a command's own timeout: then the guest hangs, not the command

STARTS_A_CPU = re.compile(r"echo 1 > \S+/online")

logger = logging.getLogger(__name__)


class NeverCameUp(Exception):
    """A start of CPUs got nowhere: emulation's fault, says nothing about what is tested."""


@dataclass(frozen=True)
class Result:
    """What became of a command: status 124 is a timeout, a negative one the signal it died of."""

    command: str
    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        outcome = f"{self.command}\nexit status {self.status}"
        return f"{outcome}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"


class Guest:
    """A machine that has finished booting. Made by `boot`."""

    def __init__(self, qemu: Qemu, console: Path) -> None:
        self.console = console
        self._qemu = qemu
        self._ids = itertools.count()
        self._boot = ""
        self._finish_boot()

    def run(self, command: str, *, timeout: float = 60, check: bool = True) -> Result:
        """Runs a bash command as root for at most `timeout` seconds.

        Returns when its output ends: what it leaves in the background has to print elsewhere.
        Raises AssertionError if a checked command fails, Lost if the machine does, and NeverCameUp
        if that was to start a CPU, where emulation hangs as it does at boot.
        """
        try:
            answer = self._answer(self._ask(command, timeout), timeout + GRACE_SECONDS)
        except Lost as lost:
            if STARTS_A_CPU.search(command):
                raise NeverCameUp(str(lost)) from lost
            raise
        result = Result(command, answer["status"], answer["stdout"], answer["stderr"])
        assert not check or result.status == 0, f"failed in the guest: {result}"
        return result

    def wait_until(self, condition: str, timeout: float = 60) -> Result:
        """Tries a bash command again and again, inside the guest, until it succeeds.

        Raises AssertionError with what it printed last if that takes more than `timeout` seconds.
        """
        loop = (
            f"end=$((SECONDS + {timeout:.0f}))\n"
            f"until last=$(exec 2>&1\n{condition}\n)\n"
            'do ((SECONDS <= end)) || { echo "$last"; exit 1; }; sleep 0.2; done\n'
            'echo "$last"'
        )
        result = self.run(loop, timeout=timeout + GRACE_SECONDS, check=False)
        assert result.status == 0, (
            f"not true in {timeout:g} s: {condition}\n--- last said\n{result.stdout}{result.stderr}"
        )
        return result

    def bring_online(self, cpu: int, then: str = "true") -> Result:
        """Starts an offline CPU, and runs a command; a slow CPU is given a second chance."""
        switch = f"echo 1 > /sys/devices/system/cpu/cpu{cpu}/online"
        return self.run(f"{{ {switch} || {switch}; }} && {then}")

    def reboot(self) -> None:
        """Returns when the next boot is done; what was written to the disk is still there."""
        self._ask("systemctl reboot", GRACE_SECONDS)
        self._finish_boot()

    def journal(self, unit: str | None = None) -> str:
        """What this boot has logged."""
        of = "" if unit is None else f"--unit={unit}"
        return self.run(f"journalctl --boot --no-pager {of}").stdout

    def _finish_boot(self) -> None:
        """Waits for a boot that is not the one before, and for everything that starts with it."""
        try:
            while (boot := self._qemu.receive(BOOT_SECONDS).get("boot", self._boot)) == self._boot:
                pass
            self._boot = boot
            self.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS, check=False)
        except Lost as lost:
            raise NeverCameUp(str(lost)) from lost

    def _ask(self, command: str, timeout: float) -> int:
        request = next(self._ids)
        self._qemu.send({"id": request, "command": command, "timeout": timeout})
        return request

    def _answer(self, request: int, timeout: float) -> dict[str, Any]:
        """The answer to that request; one to a request given up on may still come before it."""
        while (answer := self._qemu.receive(timeout)).get("id") != request:
            if "boot" in answer:
                raise Lost("the guest or its agent has started anew in the middle of a command")
        return answer


@contextmanager
def boot(
    image: Image, *, append: str = ISOLATED, files: Sequence[Path] = (), log: Path
) -> Iterator[Guest]:
    """A guest that finds `files` in /mnt/files; its console goes to `log`.

    A machine that never came up is started once more: now and then an emulated kernel hangs or
    panics while it starts its CPUs. Raises NeverCameUp when the second does not come up either.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        disk = files_disk(files, Path(scratch))
        try:
            guest = stack.enter_context(started(image, disk, append, log))
        except NeverCameUp as error:
            logger.warning("starting the guest once more: %s", error)
            guest = stack.enter_context(started(image, disk, append, log))
        yield guest


@contextmanager
def started(image: Image, files: Path, append: str, console: Path) -> Iterator[Guest]:
    with running(image, files, append, console) as qemu:
        yield Guest(qemu, console)


def files_disk(files: Sequence[Path], scratch: Path) -> Path:
    content = scratch / "files"
    content.mkdir()
    for file in files:
        shutil.copy(file, content)
    disk = scratch / "files.ext4"
    make_disk(disk, content, (16 << 20) + 2 * sum(file.stat().st_size for file in files))
    return disk
