"""Compares a running host with a plan: its files, and whether they and its commands took effect.

Each part says itself what of it can be seen on a running host.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import files
from isolcpus_dp.plan import kernel, kubelet, runtime, systemd, tuning, write

if TYPE_CHECKING:
    from isolcpus_dp.plan.parts import Plan

NOTHING = "nothing to do: the host is as planned"

_COMPARISONS = (
    kernel.differences,
    systemd.differences,
    kubelet.differences,
    runtime.differences,
    tuning.differences,
)


def differences(plan: Plan, root: Path = Path("/")) -> list[str]:
    """A sentence for each difference, or for what cannot be seen; empty if the host is as planned.

    The sentence says what to do, unless it is to write the plan or to reboot.
    """
    found = [*_files(plan, root), *_left(plan, root)]
    for compare in _COMPARISONS:
        try:
            for sentence in compare(plan.goal, plan.known, root):
                found.append(sentence)  # those before a failure are kept
        except files.Unseen as unseen:
            found.append(str(unseen))
    return found


def _files(plan: Plan, root: Path) -> Iterator[str]:
    """A sentence for each file that is not as planned."""
    for file in plan.files:
        try:
            present = write.content(write.place(root, file.path))
        except write.WriteError as error:
            # Nothing is written here.
            yield str(error).partition("; nothing")[0]
            continue
        if present is None:
            yield f"{file.path} is missing"
        elif present != file.text:
            yield f"{file.path} differs from the plan"


def _left(plan: Plan, root: Path) -> Iterator[str]:
    """A sentence for each file of an earlier plan."""
    for path in plan.former:
        try:
            if write.leftover(root, path, plan.files):
                yield f"{path} is left from an earlier plan"
        except write.WriteError as error:
            yield str(error)
