"""Gives back the pages of program files that a process needed only to start.

They stay in the kernel's page cache. A page that is needed again is mapped again, which takes less
than a microsecond; nothing is read from the disk as long as another process uses the page.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

# <sys/mman.h>
_MADV_DONTNEED = 4

_SMAPS = Path("/proc/self/smaps")


def release() -> None:
    """Unmaps the pages of all files that this process has mapped to read or execute.

    Not to be called while other threads run. Does nothing if the kernel does not show the mappings.
    """
    try:
        # Line by line: as a whole, the text would take a megabyte for good.
        with _SMAPS.open(encoding="utf-8", errors="replace") as lines:
            areas = list(clean(lines))
    except OSError:
        return
    libc = ctypes.CDLL(None)
    for start, end in areas:
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def clean(lines: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Start and end of the mappings in /proc/PID/smaps whose pages are all those of a file.

    A mapping that was written to before it became read-only, as the loader does with relocations,
    has pages of its own, in memory or in the swap: these would be lost. Huge pages of hugetlbfs are
    not in these counts, nor in Rss. QEMU's emulation of a process shows 0 for all of them, whatever
    was written. Therefore a mapping without resident pages is left alone.
    """
    area: tuple[int, int] | None = None
    own: dict[str, str] = {}
    for line in itertools.chain(lines, ["0-0 ---p 0 0 0"]):
        key, *values = line.split()
        if key.endswith(":"):
            own[key] = " ".join(values[:1])
            continue
        is_resident = own.get("Rss:", "0") != "0"
        if area and is_resident and own.get("Anonymous:") == own.get("Swap:") == "0":
            yield area
        start, _, end = key.partition("-")
        permissions, name = values[0], " ".join(values[4:])
        is_file = name.startswith("/") and not name.startswith("/dev/")
        area = (int(start, 16), int(end, 16)) if is_file and "w" not in permissions else None
        own = {}
