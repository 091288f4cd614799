"""A qemu process: the machine the tests assume, its console, and the wire to the agent inside it.

CPU     0 1 | 2 3    4 5 | 6 7
core     0  |  1      0  |  1
node        0            1
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .image import Image

PANIC = b"end Kernel panic"  # the last line of one: what it has to say is on the console by then
TAIL = 4000


PANICKED = "the kernel panicked"


class Lost(Exception):
    """The machine ended, panicked or fell silent. Carries the end of its console."""


def command(image: Image, files: Path, append: str, agent: int) -> list[str]:
    """A machine with its console on stdout and its agent's port on the connected socket `agent`.

    The disk is a snapshot: what the guest writes survives its reboots and is gone with qemu.
    Four settings are for the emulation: an AMD CPU would have no SMT siblings and no shared caches
    there, a larger cache of translated code makes a reboot take twice as long, mitigations cost a
    third of the boot, and a kernel that finds its emulated clock wanting changes its own code as it
    runs, which kills it.
    """
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # not even a killed test run leaves a machine behind
        "qemu-system-x86_64",
        *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
        *("-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max,vendor=GenuineIntel", "-m", "2G"),
        *("-smp", "8,sockets=2,cores=2,threads=2"),
        *("-object", "memory-backend-ram,id=ram0,size=1G"),
        *("-object", "memory-backend-ram,id=ram1,size=1G"),
        *("-numa", "node,nodeid=0,memdev=ram0,cpus=0-3"),
        *("-numa", "node,nodeid=1,memdev=ram1,cpus=4-7"),
        *("-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on"),
        *("-drive", f"file={files},format=raw,if=virtio,readonly=on"),
        *("-device", "virtio-serial", "-chardev", f"socket,id=agent,fd={agent}"),
        *("-device", "virtserialport,chardev=agent,name=agent"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"root=/dev/vda rw console=ttyS0 mitigations=off tsc=nowatchdog {append}"),
    ]


class Qemu:
    """A running qemu; messages go to and from the agent, the console is written down on the way."""

    def __init__(self, agent: socket.socket, console: IO[bytes], log: IO[bytes]) -> None:
        self._agent = agent
        self._console = console
        self._log = log
        self._tail = b""
        self._pending = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(console, selectors.EVENT_READ, self._read_console)
        self._selector.register(agent, selectors.EVENT_READ, self._read_agent)

    def send(self, message: dict[str, Any]) -> None:
        """Queues a message; an agent that is not there yet reads it when it is."""
        self._agent.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float) -> dict[str, Any]:
        """The agent's next message; Lost if none comes in `timeout` seconds, or none ever can."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._pending:
            if PANIC in self._tail:
                raise self._lost(PANICKED)
            ready = self._selector.select(deadline - time.monotonic())
            if not ready:
                raise self._lost(f"nothing from the agent in {timeout:g} s")
            for key, _ in ready:
                key.data()
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _read_agent(self) -> None:
        chunk = self._agent.recv(65536)
        if not chunk:  # qemu has ended: the console's own end follows, with the reason before it
            self._selector.unregister(self._agent)
        self._pending += chunk

    def _read_console(self) -> None:
        chunk = os.read(self._console.fileno(), 65536)
        if not chunk:
            raise self._lost("qemu has ended")
        self._log.write(chunk)
        self._tail = (self._tail + chunk)[-TAIL:]

    def _lost(self, reason: str) -> Lost:
        return Lost(f"{reason}; the console ends with:\n{self._tail.decode(errors='replace')}")


@contextmanager
def running(image: Image, files: Path, append: str, console: Path) -> Iterator[Qemu]:
    """A qemu that is killed on leaving. What its machine prints is appended to `console`."""
    ours, theirs = socket.socketpair()
    with ours, console.open("ab", buffering=0) as log:
        with theirs:
            process = subprocess.Popen(
                command(image, files, append, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        with process:
            assert process.stdout is not None
            try:
                yield Qemu(ours, process.stdout, log)
            finally:
                process.kill()
                log.write(process.stdout.read())
