"""Two readings of /proc/interrupts or /proc/softirqs, with a line `%%` between them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from isolcpus_dp.config import Config
from isolcpus_dp.host.interrupts import Counts, devices
from isolcpus_dp.report.check import interrupts
from isolcpus_dp.report.check.host import Host, Roots
from isolcpus_dp.report.snapshot import Snapshot
from isolcpus_dp.simulator.machine import described, parse_shape
from tests.fuzz import inputs, sentences

_MACHINE = described(parse_shape("1x4x2"), {2, 3, 6, 7})


def check(data: bytes) -> bool:
    """Any table has counts or none, and the check reports them in one sentence."""
    before, after = inputs.parts(data, 2)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        host = Host(
            Roots(sysfs=root / "sys", proc=root),
            Snapshot(_MACHINE, Config(), pools=(), owners=(), unseen=()),
        )
        first, second = _read(host, before), _read(host, after)
        sentences.require(interrupts.judge(host, first, second).evidence)
        assert interrupts.judge(host, second, second).verdict.value in ("ok", "unknown")
    return bool(first or second)


def _read(host: Host, table: bytes) -> Counts:
    """The counts: never of a CPU that the first line does not name, and never negative."""
    (host.roots.proc / "interrupts").write_bytes(table)
    found = interrupts.read(host)
    lines = table.decode("utf-8", "replace").strip().split("\n")
    assert all(number.isdecimal() and name for number, name in devices(lines).items())
    words = lines[0].split()
    for counts in found.values():
        assert len(counts) <= len(words)
        assert all(count >= 0 for count in counts.values())
    return found
