"""A guest: run commands in it, wait for a condition, reboot it, read its journal."""

from __future__ import annotations

import itertools
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .qemu import Lost, Qemu

BOOT_SECONDS = 200.0  # several times what a busy host with two cores needs
RESETS = 2  # of a boot; about one in six of them panics or hangs
GRACE_SECONDS = 30.0  # beyond a command's own timeout: then the guest hangs, not the command

logger = logging.getLogger(__name__)

STARTS_A_CPU = re.compile(r"echo (1 > \S+/online|on > \S+/smt/control)")


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
    """A machine that boots or goes on from a saved state. Made by `state.start`."""

    def __init__(self, qemu: Qemu, console: Path) -> None:
        self.console = console
        self._qemu = qemu
        self._ids = itertools.count()
        self._boot = ""

    def finish_boot(self) -> None:
        """Waits for a boot that is not the one before, and for everything that starts with it.

        If the emulated kernel panics or hangs, which happens in some of the boots, the machine is
        reset, at most RESETS times. Raises NeverCameUp if that does not help.
        """
        try:
            for _ in range(RESETS):
                try:
                    self._wait_for_boot()
                except Lost as lost:
                    logger.warning("resetting the machine: %s", lost)
                    self._qemu.reset()
                else:
                    return
            self._wait_for_boot()
        except (Lost, OSError) as error:
            raise NeverCameUp(str(error)) from error

    def _wait_for_boot(self) -> None:
        while (boot := self._qemu.receive(BOOT_SECONDS).get("boot", self._boot)) == self._boot:
            pass
        self._boot = boot
        self.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS, check=False)

    def resume(self) -> None:
        """After a restore: sets the clock, mounts the disk with the files."""
        command = f"date --set=@{time.time():.3f} && cat /proc/sys/kernel/random/boot_id"
        self._boot = self.run(command).stdout.splitlines()[-1]
        self.mount_files()

    def clock_rate(self) -> float:
        """How many seconds pass in the guest while one passes here, roughly."""
        began, uptime = time.monotonic(), self._uptime()
        time.sleep(2)
        return (self._uptime() - uptime) / (time.monotonic() - began)

    def _uptime(self) -> float:
        return float(self.run("cat /proc/uptime").stdout.split()[0])

    def mount_files(self) -> None:
        self.run("mount /mnt/files")

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
        self.finish_boot()
        self.mount_files()

    def journal(self, unit: str | None = None) -> str:
        """What this boot has logged."""
        of = "" if unit is None else f"--unit={unit}"
        return self.run(f"journalctl --boot --no-pager {of}").stdout

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
