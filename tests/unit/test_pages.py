"""Which pages of a process are given back, and that it goes on without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from isolcpus_dp.service import pages

# As Linux 6.12 prints it, without the lines that do not matter.
SMAPS = """\
55d0c0000000-55d0c0100000 r--p 00000000 fe:00 100                        /usr/bin/python3.14
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me
55d0c0100000-55d0c0400000 r-xp 00100000 fe:00 100                        /usr/bin/python3.14
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
55d0c0600000-55d0c0610000 r--p 00600000 fe:00 100                        /usr/bin/python3.14
Rss:                   4 kB
Anonymous:            64 kB
Swap:                  0 kB
55d0c0610000-55d0c0620000 r--p 00610000 fe:00 100                        /usr/bin/python3.14
Rss:                   4 kB
Anonymous:             0 kB
Swap:                 64 kB
55d0c0620000-55d0c0630000 rw-p 00620000 fe:00 100                        /usr/bin/python3.14
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
55d0c0640000-55d0c0650000 r--p 00000000 00:00 0
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
7f0000000000-7f0000001000 r--s 00000000 00:05 9                          /dev/example
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
7f0000002000-7f0000003000 r--p 00000000 fe:00 300                        /usr/lib/a name.so
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
7f0000004000-7f0000005000 r--p 00000000 fe:00 300                        /usr/lib/b.so
Rss:                   4 kB
7f0000400000-7f0000600000 r--p 00000000 00:0f 7                          /anon_hugepage (deleted)
Rss:                   0 kB
Anonymous:             0 kB
Private_Hugetlb:    2048 kB
Swap:                  0 kB
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
"""


def test_only_unwritten_pages_of_files_are_given_back() -> None:
    assert [(hex(start), hex(end)) for start, end in pages.clean(SMAPS.splitlines())] == [
        ("0x55d0c0000000", "0x55d0c0100000"),
        ("0x55d0c0100000", "0x55d0c0400000"),
        ("0x7f0000002000", "0x7f0000003000"),
    ]


# As QEMU 8.1 and newer print it to a program of another architecture.
EMULATED = """\
5500000000-5500010000 r--p 00600000 fe:00 100                            /usr/bin/python3.14
Size:                 64 kB
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  0 kB
"""


def test_emulated_process_keeps_its_pages() -> None:
    """Its loader has written to the pages of this mapping."""
    assert list(pages.clean(EMULATED.splitlines())) == []


def test_kernel_without_the_list_of_mappings_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_SMAPS", tmp_path / "absent")
    pages.release()
    assert list(pages.clean([])) == []


RELEASE = """
import ctypes, json, logging
from pathlib import Path
from isolcpus_dp.service import pages

def mapped():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    numbers = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
    return numbers["Rss:"] - numbers["Anonymous:"], numbers["Anonymous:"]

files_before, own_before = mapped()
pages.release()
files_after, own_after = mapped()
assert files_after < files_before - 1024, (files_before, files_after)
assert own_after >= own_before, (own_before, own_after)
# All code and data is still there.
assert json.loads(json.dumps({"a": [1.5, None]})) == {"a": [1.5, None]}
import asyncio, decimal
assert asyncio.run(asyncio.sleep(0, "done")) == "done"
print("alive")
"""


def test_process_goes_on_after_its_pages_are_given_back() -> None:
    ended = subprocess.run([sys.executable, "-c", RELEASE], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alive\n", "")
