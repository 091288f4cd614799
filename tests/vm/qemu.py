"""A qemu process: the machine the tests assume, its console, and the wire to the agent inside it.

CPU     0 1 | 2 3    4 5 | 6 7
core     0  |  1      0  |  1
node        0            1
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from .boot_loader import KERNEL_ARGUMENTS
from .image import Image

PANIC = b"end Kernel panic"  # the last line of one: what it has to say is on the console by then
TAIL = 4000

PANICKED = "the kernel panicked"

SAVE_SECONDS = 120.0  # many times what writing the memory takes


class Lost(Exception):
    """The machine ended, panicked or fell silent. Carries the end of its console."""


@dataclass(frozen=True)
class Machine:
    """An image and kernel arguments. A saved state can only be resumed on the same machine.

    If a boot loader boots the image, the arguments are in its configuration, and not here.
    """

    image: Image
    append: str

    def arguments(self) -> list[str]:
        """The arguments of qemu for every start of the machine; its console is on stdout.

        Five settings are for the emulation:
        - An emulated AMD CPU has no SMT siblings and no shared caches.
        - Translation of code takes almost half of the time. A cache that holds all translated code,
          and programs that are always at the same addresses, avoid most of it. A cache of twice
          this size makes a reboot take twice as long.
        - Mitigations take a third of the boot time.
        - A kernel that marks its emulated clock as unstable patches its own running code, and
          crashes.
        """
        kernel = ["-kernel", str(self.image.kernel)]
        if self.image.initrd:
            words = f"root=/dev/vda rw {KERNEL_ARGUMENTS} {self.append}"
            kernel += ["-initrd", str(self.image.initrd), "-append", words]
        return [
            "qemu-system-x86_64",
            *("-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
            *("-accel", "tcg,thread=multi,tb-size=512"),
            *("-cpu", "max,vendor=GenuineIntel", "-m", "2G"),
            *("-smp", "8,sockets=2,cores=2,threads=2"),
            *("-object", "memory-backend-ram,id=ram0,size=1G"),
            *("-object", "memory-backend-ram,id=ram1,size=1G"),
            *("-numa", "node,nodeid=0,memdev=ram0,cpus=0-3"),
            *("-numa", "node,nodeid=1,memdev=ram1,cpus=4-7"),
            *kernel,
        ]


def boots(machine: Machine, disk: Path, files: Path) -> list[str]:
    """Boots the machine; its writes go to `disk`, a qcow2 image."""
    return [
        *machine.arguments(),
        *("-drive", f"file={disk},format=qcow2,if=virtio,cache=unsafe"),
        *("-drive", f"file={files},format=raw,if=virtio,readonly=on"),
    ]


def resumes(machine: Machine, disk: Path, memory: Path, files: Path) -> list[str]:
    """Resumes from a saved state; writes survive a reboot and are lost when qemu ends.

    The content of the disks is not part of `memory`: `disk` must be the one that was saved with it,
    and `files` must have the same size as at the boot.
    """
    return [
        *machine.arguments(),
        *("-drive", f"file={disk},format=qcow2,if=virtio,snapshot=on"),
        *("-drive", f"file={files},format=raw,if=virtio,readonly=on"),
        *("-incoming", f"exec:cat {shlex.quote(str(memory))}"),
    ]


def continues(machine: Machine, disk: Path, memory: Path, files: Path) -> list[str]:
    """Resumes from a saved state, as `resumes`, but its writes go to `disk`.

    `disk` is an overlay of the one that was saved with `memory`.
    """
    return [*boots(machine, disk, files), "-incoming", f"exec:cat {shlex.quote(str(memory))}"]


class Monitor:
    """qemu's own port: QMP, one JSON command a line. Raises Lost if qemu refuses one."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SAVE_SECONDS)
        self._stream = connection.makefile("rw")
        self._stream.readline()  # its greeting
        self._execute("qmp_capabilities")

    def save(self, memory: Path) -> None:
        """Writes the state of the machine and ends it; its disk is complete then as well.

        The machine must not be stopped first: it would be resumed as stopped. The long downtime
        makes qemu stop it as soon as it starts to write.
        """
        self._execute(
            "migrate-set-parameters", {"max-bandwidth": 1 << 40, "downtime-limit": 60_000}
        )
        self._execute("migrate", {"uri": f"exec:cat > {shlex.quote(str(memory))}"})
        end = time.monotonic() + SAVE_SECONDS
        while (state := self._execute("query-migrate").get("status")) != "completed":
            if state == "failed" or time.monotonic() > end:
                raise Lost(f"saving the machine's state: {state}")
            time.sleep(0.1)
        self._execute("quit")

    def reset(self) -> None:
        self._execute("system_reset")

    def _execute(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        request = {"execute": command, "arguments": arguments or {}}
        self._stream.write(json.dumps(request) + "\n")
        self._stream.flush()
        while line := self._stream.readline():
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise Lost(f"{command}: {answer['error']}")
            if "return" in answer:
                result: dict[str, Any] = answer["return"]
                return result
        raise Lost(f"{command}: qemu has ended")


class Qemu:
    """A running qemu; messages go to and from the agent, the console is written down on the way."""

    def __init__(
        self, agent: socket.socket, monitor: socket.socket, console: IO[bytes], log: IO[bytes]
    ) -> None:
        self._agent = agent
        self._monitor_connection = monitor
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

    @cached_property
    def _monitor(self) -> Monitor:
        return Monitor(self._monitor_connection)

    def save(self, memory: Path) -> None:
        """Writes the state to `memory` and ends the machine. Its agent must be idle."""
        self._monitor.save(memory)

    def reset(self) -> None:
        """Starts the machine again, as its reset button does. Its disk keeps what was written."""
        self._monitor.reset()
        self._tail = self._pending = b""

    def _read_agent(self) -> None:
        try:
            chunk = self._agent.recv(65536)
        except ConnectionResetError:  # a message was left unread
            chunk = b""
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
def running(command: list[str], console: Path) -> Iterator[Qemu]:
    """A qemu that is killed on leaving. What its machine prints is appended to `console`."""
    with ExitStack() as stack:
        agent, its_agent = socket.socketpair()
        monitor, its_monitor = socket.socketpair()
        for end in (agent, monitor):
            stack.enter_context(end)
        log = stack.enter_context(console.open("ab", buffering=0))
        with its_agent, its_monitor:
            process = subprocess.Popen(
                # A killed test run leaves no machine behind.
                ["setpriv", "--pdeathsig", "KILL", *command, *ports(its_agent, its_monitor)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[its_agent.fileno(), its_monitor.fileno()],
            )
        with process:
            assert process.stdout is not None
            try:
                yield Qemu(agent, monitor, process.stdout, log)
            finally:
                process.kill()
                log.write(process.stdout.read())


def ports(agent: socket.socket, monitor: socket.socket) -> list[str]:
    return [
        *("-device", "virtio-serial", "-chardev", f"socket,id=agent,fd={agent.fileno()}"),
        *("-device", "virtserialport,chardev=agent,name=agent"),
        *("-chardev", f"socket,id=monitor,fd={monitor.fileno()}"),
        *("-mon", "chardev=monitor,mode=control"),
    ]
