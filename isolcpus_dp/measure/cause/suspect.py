"""What disturbed one CPU, by role: how often, who it was, and how long if that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isolcpus_dp.measure.activity import Source
from isolcpus_dp.measure.cause import names
from isolcpus_dp.measure.cause.role import RULES, Role

if TYPE_CHECKING:
    from isolcpus_dp.measure.activity import Activity, Noise

Counts = dict[Role, dict[str, int]]

# A loop that has just begun touches its own pages for the first time: oslat of rt-tests 2.6 had 14
# page faults after it had begun to measure.
_FIRST_FAULTS = 30

_NOISES = {Source.SOFTIRQ: Role.SOFTIRQ, Source.NMI: Role.NMI}


@dataclass(frozen=True)
class Suspect:
    """All events of one role on one CPU."""

    role: Role
    seconds: float
    counts: Mapping[str, int] = field(default_factory=dict)  # by name
    # As osnoise measured it; None without that tracer.
    total_us: float | None = None
    longest_us: float | None = None

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.count / self.seconds if self.seconds > 0 else 0.0

    @property
    def weight(self) -> float:
        """The time that all events took together, in us: measured, or estimated."""
        return self.total_us or self.count * RULES[self.role].usual_us


def suspects(activity: Activity, devices: Mapping[str, str]) -> tuple[Suspect, ...]:
    """All roles with an event, in the order of RULES. `devices` has names of interrupt lines."""
    counts = _counted(activity, devices)
    noises: dict[Role, list[tuple[str, Noise]]] = {}
    for noise in activity.noises or ():
        role, name = _of_noise(noise, devices)
        noises.setdefault(role, []).append((name, noise))
    # Where a kind of counter could not be read, osnoise has the events.
    for role, found in noises.items():
        if role not in counts:
            for name, noise in found:
                _add(counts, role, name, noise.count)
    return tuple(
        _suspect(role, activity.seconds, counts[role], [noise for _, noise in noises.get(role, ())])
        for role in RULES
        if sum(counts.get(role, {}).values())
    )


def _suspect(role: Role, seconds: float, counts: dict[str, int], noises: list[Noise]) -> Suspect:
    if not noises:
        return Suspect(role, seconds, counts)
    total = sum(noise.total_us for noise in noises)
    longest = max(noise.longest_us for noise in noises)
    return Suspect(role, seconds, counts, total, longest)


def _counted(activity: Activity, devices: Mapping[str, str]) -> Counts:
    counts: Counts = {}
    for line, count in activity.interrupts.items():
        role = names.line(line, devices.get(line, ""))
        if role:
            _add(counts, role, _label(line, devices) if role is Role.DEVICE else line, count)
    # Performance counters interrupt with an NMI: such a one is in both lines.
    if "NMI" in counts.get(Role.NMI, {}):
        counts[Role.NMI].pop("PMI", None)
    for name, count in activity.softirqs.items():
        _add(counts, Role.SOFTIRQ, name, count)
    for name, count in (activity.works or {}).items():
        _add(counts, Role.WORK, name, count)
    _count_threads(counts, activity, devices)
    if activity.loop:
        _add(counts, Role.MAJOR_FAULT, "", activity.loop.major_faults)
        _add(counts, Role.MINOR_FAULT, "", max(0, activity.loop.minor_faults - _FIRST_FAULTS))
        threads_seen = activity.threads is not None or activity.noises is not None
        if not threads_seen:
            _add(counts, Role.UNNAMED, "", activity.loop.involuntary_switches)
    _add(counts, Role.SMI, "", activity.smis or 0)
    return counts


def _count_threads(counts: Counts, activity: Activity, devices: Mapping[str, str]) -> None:
    """Adds threads. Most of the kernel's run because of an event that is counted already."""
    counted = frozenset(counts)
    for name, count in (activity.threads or {}).items():
        role = names.thread(name)
        if role is Role.DEVICE:
            label = _label(names.line_of_thread(name) or name, devices)
            # The interrupt may fire on another CPU than its thread runs on.
            count -= counts.get(role, {}).get(label, 0)
            _add(counts, role, label, max(count, 0))
        elif role is Role.WORK:
            if not activity.works:
                _add(counts, role, name, count)
        elif role is Role.SOFTIRQ and name.startswith("rcuc/"):
            # With rcutree.use_softirq=0, as on PREEMPT_RT, this thread has the place of a softirq.
            _add(counts, role, "RCU", max(count - activity.softirqs.get("RCU", 0), 0))
        elif role in (Role.SOFTIRQ, Role.IPI):
            if role not in counted:
                _add(counts, role, name, count)
        else:
            _add(counts, role, name, count)


def _of_noise(noise: Noise, devices: Mapping[str, str]) -> tuple[Role, str]:
    """The role of a noise and the name under which it is counted."""
    if noise.source is Source.INTERRUPT:
        role = names.interrupt(noise.name)
        return role, _label_of_device(noise.name, devices) if role is Role.DEVICE else noise.name
    if noise.source is Source.THREAD:
        role = names.thread(noise.name)
        line = names.line_of_thread(noise.name)
        return role, _label(line, devices) if line else noise.name
    return _NOISES[noise.source], noise.name


def _label(line: str, devices: Mapping[str, str]) -> str:
    """`4 (ttyS0)`"""
    return f"{line} ({devices[line]})" if devices.get(line) else line


def _label_of_device(name: str, devices: Mapping[str, str]) -> str:
    """The same for the name of a handler; drivers that share a line are separated by commas."""
    lines = (line for line, named in devices.items() if name in named.split(", "))
    return next((_label(line, devices) for line in lines), name)


def _add(counts: Counts, role: Role, name: str, count: int) -> None:
    if count:
        by_name = counts.setdefault(role, {})
        by_name[name] = by_name.get(name, 0) + count
