"""How many system management interrupts there were. Only Intel's CPUs count them.

To read the counter of a CPU interrupts that CPU. Therefore it is read on a CPU that is not
measured: firmware handles an SMI on all CPUs at the same time.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

from isolcpus_dp.host import files
from isolcpus_dp.host.files import Unseen

# MSR_SMI_COUNT: the lower 32 bits are the number since the last reset.
_REGISTER = 0x34


def require(proc: Path) -> None:
    """Raises Unseen if this machine's CPUs have no counter.

    Linux before 5.19 interrupts CPUs when /proc/cpuinfo is read: call it before the measurement.
    """
    information = files.text(proc / "cpuinfo")
    if not re.search(r"^vendor_id\s*:\s*GenuineIntel$", information, re.MULTILINE):
        raise Unseen("only Intel CPUs have a counter")
    if re.search(r"^flags\s*:.*\bhypervisor\b", information, re.MULTILINE):
        raise Unseen("the counter of a virtual machine does not have those of its host")


def count(dev: Path, cpu: int) -> int:
    """The SMIs since the last reset. Raises Unseen."""
    path = dev / "cpu" / str(cpu) / "msr"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unseen(f"{path} is missing: modprobe msr") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        content = os.pread(descriptor, 8, _REGISTER)
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(descriptor)
    if len(content) < 8:
        raise Unseen(f"{path} has no register {_REGISTER:#x}")
    return int(struct.unpack("<Q", content)[0]) & 0xFFFFFFFF


def _unreadable(path: Path, error: OSError) -> Unseen:
    return Unseen(
        f"cannot read {path}: {error.strerror}: run the command as root, and see"
        " /sys/kernel/security/lockdown"
    )
