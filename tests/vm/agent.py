#!/usr/bin/python3
"""Runs in the guest: executes the commands that the host sends to a virtio-serial port.

Uses only the standard library. It first sends the boot ID, so that the host detects each boot.
After that, each line is a JSON request, and is answered with a line of JSON.
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

TIMED_OUT = 124  # as timeout(1) exits


def lines(port: int) -> Iterator[bytes]:
    """Yields the lines that the host sends, forever. The host may disconnect and reconnect.

    While no host is connected, read() returns no data instead of blocking. Only an edge-triggered
    epoll sleeps until the host reconnects; a level-triggered one reports the hang-up repeatedly.
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
    """Runs a command; kills it with its children at the timeout. Returns its status and output."""
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
    """Sends a message to the host; waits until the host is connected."""
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
