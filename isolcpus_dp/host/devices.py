"""Where devices are: the NUMA node of a PCI device or of a network interface.

ABI/testing/sysfs-bus-pci (numa_node) and sysfs-class-net describe the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isolcpus_dp.host.sysfs import read_text


@dataclass(frozen=True)
class Location:
    """Where a device is; `found` is False if the machine does not have it."""

    node: int | None = None  # None: unknown
    found: bool = True


def locate(sysfs: Path, names: Iterable[str]) -> Mapping[str, Location]:
    """By name, a PCI address or a network interface: where it is now. Raises MachineError."""
    return {name: _locate(sysfs, name) for name in names}


def _locate(sysfs: Path, name: str) -> Location:
    directory = _pci_device(sysfs, name) if ":" in name else _interface(sysfs, name)
    if directory is None:
        return Location(found=False)
    # A virtio interface has no node of its own, but the PCI device that it belongs to has one.
    for parent in (directory, *directory.parents):
        if parent == sysfs:
            break
        text = read_text(f"{parent}/numa_node")
        if text.isdecimal():
            return Location(int(text))
        if text:  # -1: the firmware does not say
            break
    return Location()


def _pci_device(sysfs: Path, address: str) -> Path | None:
    device = sysfs / "bus/pci/devices" / address
    return device.resolve() if device.exists() else None


def _interface(sysfs: Path, name: str) -> Path | None:
    """The directory of an interface.

    The link is read, not followed: in the sandbox of the unit, which has no network, only the
    directory of links shows the interfaces of the host.
    """
    entry = sysfs / "class/net" / name
    try:
        target = entry.readlink()
    except OSError:
        return entry.resolve() if entry.exists() else None
    return Path(os.path.normpath(entry.parent / target))
