"""The counter of system management interrupts."""

from __future__ import annotations

import pytest

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.measure.record import smi

from .conftest import MadeUpKernel

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n"


def test_counter_is_the_low_half_of_register_0x34(kernel: MadeUpKernel) -> None:
    kernel.proc("cpuinfo", INTEL)
    smi.require(kernel.roots.proc)
    path = kernel.roots.dev / "cpu/1/msr"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(0x34) + bytes([7, 1, 0, 0, 255, 255, 255, 255]))
    assert smi.count(kernel.roots.dev, 1) == 263


def test_missing_module_is_named(kernel: MadeUpKernel) -> None:
    with pytest.raises(Unseen, match=r"dev/cpu/1/msr is missing: modprobe msr$"):
        smi.count(kernel.roots.dev, 1)


def test_other_vendors_have_no_counter(kernel: MadeUpKernel) -> None:
    with pytest.raises(Unseen, match="only Intel CPUs have a counter"):
        smi.require(kernel.roots.proc)


def test_counters_of_virtual_machines_are_not_used(kernel: MadeUpKernel) -> None:
    kernel.proc("cpuinfo", INTEL.replace("vme", "vme hypervisor"))
    with pytest.raises(Unseen, match="virtual machine"):
        smi.require(kernel.roots.proc)
