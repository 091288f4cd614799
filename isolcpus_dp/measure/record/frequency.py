"""The frequency of a CPU, as the kernel knows it without asking that CPU."""

from __future__ import annotations

from pathlib import Path

from isolcpus_dp.host import files


def read(sysfs: Path, cpu: int) -> int | None:
    """The frequency in MHz; None without a cpufreq driver. Raises Unseen.

    Linux before 5.19 interrupts the CPU for it, unless that CPU is in nohz_full=
    (arch_freq_get_on_cpu() in arch/x86/kernel/cpu/aperfmperf.c).
    """
    text = files.text(sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq")
    return int(text) // 1000 if text.isdecimal() else None
