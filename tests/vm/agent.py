#!/usr/bin/python3
"""The host's hand inside the guest: runs the commands that arrive on a virtio-serial port.

Runs in the guest, on the standard library alone. Greets with the boot's id, so that the host
learns of every boot without asking; after that, one JSON request a line and one JSON answer each.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMED_OUT = 124  # as timeout(1) has it


def lines(port: int) -> Iterator[bytes]:
    """What the host sends, line by line, for ever: it may go away and come back.

    Without a host read() returns nothing at once instead of blocking, and only an edge-triggered
    epoll sleeps until the host's return (a level-triggered one reports the hang-up for ever).
    """
    pending = b""
    with select.epoll() as host:
        host.register(port, select.EPOLLIN | select.EPOLLET)
        while True:
            chunk = os.read(port, 65536)
            if not chunk:
                pending = b""
                host.poll()
                continue
            *whole, pending = (pending + chunk).split(b"\n")
            yield from whole


def run(command: str, timeout: float) -> dict[str, Any]:
    """The command's exit status and what it printed; killed with its children when time is up."""
    process = subprocess.Popen(
        ["/bin/bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=timeout)
        return {"status": process.returncode, "stdout": stdout, "stderr": stderr}
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr += f"killed: still running after {timeout:g} s\n"
        return {"status": TIMED_OUT, "stdout": stdout, "stderr": stderr}


def send(port: int, message: dict[str, Any]) -> None:
    """One message to the host; waits for a host to be there."""
    rest = json.dumps(message).encode() + b"\n"
    while rest:
        rest = rest[os.write(port, rest) :]


def main() -> None:
    port = os.open(sys.argv[1], os.O_RDWR)
    send(port, {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
    for line in lines(port):
        request = json.loads(line)
        send(port, {"id": request["id"], **run(request["command"], request["timeout"])})


if __name__ == "__main__":
    main()
