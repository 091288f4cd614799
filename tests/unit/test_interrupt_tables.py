"""The tables of /proc/interrupts and /proc/softirqs."""

from __future__ import annotations

from isolcpus_dp.host import interrupts

# CPU 1 is offline.
X86 = """\
            CPU0       CPU2
   1:          0          9   IO-APIC   1-edge      i8042
   8:          0          0  IR-IO-APIC    8-edge
  16:          4          5   IO-APIC  16-fasteoi   i801_smbus, ehci_hcd:usb1
  24:          7          0  IR-PCI-MSIX-0000:00:1f.6    0-edge      eth0-rx-0
 NMI:          1          2   Non-maskable interrupts
 LOC:    4294967          3   Local timer interrupts
 ERR:          0
 MIS:          0
""".splitlines()

ARM = """\
           CPU0       CPU1
 11:      71231      60120     GICv3  27 Level     kvm guest vtimer
 14:          0          0     GICv3  23 Level
 15:        190          0     GICv3  33 Edge      uart-pl011
IPI0:       211        198       Rescheduling interrupts
""".splitlines()


def test_counts_have_the_cpus_of_the_headline() -> None:
    assert interrupts.parse(X86) == {
        "1": {0: 0, 2: 9},
        "8": {0: 0, 2: 0},
        "16": {0: 4, 2: 5},
        "24": {0: 7, 2: 0},
        "NMI": {0: 1, 2: 2},
        "LOC": {0: 4294967, 2: 3},
    }


def test_numbered_lines_with_a_driver_have_its_name() -> None:
    assert interrupts.devices(X86) == {
        "1": "i8042",
        "16": "i801_smbus, ehci_hcd:usb1",
        "24": "eth0-rx-0",
    }


def test_names_of_drivers_may_have_spaces() -> None:
    assert interrupts.devices(ARM) == {"11": "kvm guest vtimer", "15": "uart-pl011"}


def test_softirqs_have_the_same_format() -> None:
    table = ["                    CPU0       CPU1", "       TIMER:         12         13"]
    assert interrupts.parse(table) == {"TIMER": {0: 12, 1: 13}}


def test_missing_file_has_no_counts() -> None:
    assert interrupts.parse([]) == {}
    assert interrupts.devices([]) == {}
