"""The kernel's histograms of events: what to count, the parser, and the difference of two readings.

The format is described in Documentation/trace/histogram.rst, and printed by
hist_trigger_print_key() and hist_trigger_entry_print() in kernel/trace/trace_events_hist.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Stands for the CPU in the keys of a trigger: the name of that key depends on the kernel.
CPU = "CPU"

# The names of that key: from Linux 5.14 on, and before.
CPU_FIELDS = ("common_cpu", "cpu")

_ADDRESS = re.compile(r"\[[0-9a-f]+\] ")


@dataclass(frozen=True)
class Trigger:
    """Counts an event by keys. The kernel allows three of them (TRACING_MAP_KEYS_MAX).

    Only the first key may be a text. Others may write what they want into a thread's name, up to
    15 characters: what follows it is too long to be forged.
    """

    event: str  # system and name, as `sched/sched_switch`
    keys: tuple[str, ...]
    value: str = ""  # a field of which the sum is wanted
    size: int = 2048  # how many different keys there is room for

    def command(self, cpu_field: str, condition: str) -> str:
        """What to write into the event's file `trigger`."""
        keys = ",".join(cpu_field if key == CPU else key for key in self.keys)
        values = f":vals={self.value}" if self.value else ""
        suffix = f" if {condition}" if condition else ""
        return f"hist:keys={keys}{values}:size={self.size}{suffix}"

    def pattern(self) -> re.Pattern[str]:
        """An entry in the event's file `hist`; a group for each key, the hits and the sum."""
        keys = ", ".join(_key(key, is_first=not index) for index, key in enumerate(self.keys))
        value = rf"\s+{self.value}:\s+(\d+)" if self.value else "()"
        return re.compile(rf"^\{{ {keys} *\}} hitcount:\s+(\d+){value}", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Tally:
    """How often an event occurred, and the sum of the trigger's value."""

    hits: int
    total: int = 0


# By the keys without the CPU.
Tallies = Mapping[tuple[str, ...], Tally]


@dataclass(frozen=True)
class Table:
    """One reading of a histogram."""

    by_cpu: Mapping[int, Tallies]
    dropped: int = 0  # events that were not counted: there was no room for their keys


def parse(text: str, trigger: Trigger) -> Table:
    """The text of an event's file `hist` that has one trigger."""
    place = trigger.keys.index(CPU)
    by_cpu: dict[int, dict[tuple[str, ...], Tally]] = {}
    for found in trigger.pattern().finditer(text):
        *keys, hits, total = found.groups()
        cpu = int(keys.pop(place))
        key = tuple(_ADDRESS.sub("", key.strip(), count=1) for key in keys)
        known = by_cpu.setdefault(cpu, {}).get(key, Tally(0))
        by_cpu[cpu][key] = Tally(known.hits + int(hits), known.total + int(total or 0))
    dropped = re.search(r"^ *Dropped: +(\d+)", text, re.MULTILINE)
    return Table(by_cpu, int(dropped[1]) if dropped else 0)


def grown(before: Table, after: Table, cpu: int) -> Tallies:
    """What occurred on a CPU between two readings."""
    first = before.by_cpu.get(cpu, {})
    differences = {
        key: Tally(
            now.hits - first.get(key, Tally(0)).hits, now.total - first.get(key, Tally(0)).total
        )
        for key, now in after.by_cpu.get(cpu, {}).items()
    }
    return {key: tally for key, tally in differences.items() if tally.hits > 0}


def _key(key: str, *, is_first: bool) -> str:
    """The pattern of a printed key. It is printed without what follows the dot."""
    if key == CPU:
        return r"(?:common_)?cpu: +(\d+)"
    field, _, modifier = key.partition(".")
    if modifier == "log2":
        return rf"{field}: ~ 2\^(\d+) *"
    if is_first:
        return rf"{field}: (.{{0,300}}?) *"
    return rf"{field}: +(\d+)"
