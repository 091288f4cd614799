"""Compares a running host with a plan: its files, and the command line of its kernel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import cpulist, files
from isolcpus_dp.plan import kernel, write

if TYPE_CHECKING:
    from isolcpus_dp.plan.parts import Plan

NOTHING = "nothing to do: the host is as planned"


def differences(plan: Plan, root: Path = Path("/")) -> list[str]:
    """A sentence for each difference; empty if the host is as planned.

    Raises Unseen, and WriteError if a file cannot be read.
    """
    found = []
    for file in plan.files:
        try:
            present = write.content(write.place(root, file.path))
        except write.WriteError as error:
            # Nothing is written here.
            found.append(str(error).partition("; nothing")[0])
            continue
        if present is None:
            found.append(f"{file.path} is missing")
        elif present != file.text:
            found.append(f"{file.path} differs from the plan")
    found += kernel.differences(plan.arguments, files.text(root / "proc/cmdline"))
    isolated = cpulist.parse(files.text(root / "sys/devices/system/cpu/isolated"))
    if isolated & plan.goal.machine.present != plan.goal.isolated:
        names = cpulist.render(isolated) or "(none)"
        found.append(
            f"the kernel isolates CPU {names}, and not {cpulist.render(plan.goal.isolated)}"
        )
    return found
