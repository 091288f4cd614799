"""What a process holds: threads, descriptors, inotify watches and memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.testbed.process import memory


@dataclass(frozen=True)
class Holdings:
    """What a process holds, except for its memory."""

    threads: int
    descriptors: int
    watches: int  # of inotify

    def exceed(self, other: Holdings) -> bool:
        """Whether any of the numbers is greater than in the other one."""
        return (
            self.threads > other.threads
            or self.descriptors > other.descriptors
            or self.watches > other.watches
        )

    def __str__(self) -> str:
        return f"{self.threads} threads, {self.descriptors} descriptors, {self.watches} watches"


def held(pid: int) -> Holdings:
    """Counts what a process holds. Raises OSError if it has ended."""
    process = Path(f"/proc/{pid}")
    infos = list((process / "fdinfo").iterdir())
    return Holdings(
        threads=len(list((process / "task").iterdir())),
        descriptors=len(infos),
        watches=sum(line.startswith("inotify ") for info in infos for line in _lines(info)),
    )


@dataclass(frozen=True)
class Memory:
    """Memory in MiB."""

    pss: float  # proportional share: depends on who else uses the same libraries
    anonymous: float  # the share of it that is in no file

    def __str__(self) -> str:
        return f"PSS {self.pss:.2f} MiB, {self.anonymous:.2f} of it anonymous"


def memory_of(pid: int) -> Memory:
    """The memory of a process."""
    sizes = memory(pid)
    return Memory(sizes["Pss"], sizes["Pss_Anon"])


def _lines(info: Path) -> list[str]:
    try:
        return info.read_text().splitlines()
    except FileNotFoundError:  # it has just been closed
        return []
