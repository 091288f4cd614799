"""The most likely cause of the disturbances of each CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from isolcpus_dp.measure.cause import choose, remedy, words
from isolcpus_dp.measure.cause.cause import Cause, Kind
from isolcpus_dp.measure.cause.role import RULES, SHORT, Role
from isolcpus_dp.measure.cause.suspect import suspects

if TYPE_CHECKING:
    from isolcpus_dp.measure.activity import Activity
    from isolcpus_dp.measure.cause.suspect import Suspect
    from isolcpus_dp.measure.result import Histogram, Result

# The threads of an owned CPU's owner, and what they bring with them, are no disturbance.
_OWNERS = frozenset({Role.PROCESS, Role.UNNAMED})
# A change of the frequency by less than this share is within what a reading varies by.
_SAME_FREQUENCY = 0.1
# A core that changes its frequency stands still for about this time. Within turbo, the frequency
# also changes without that.
_CHANGE_US = 10.0
# Devices that only virtual machines have, by the names of their interrupts' handlers.
_VIRTUAL_DEVICE = re.compile(r"virtio|xen|vmw_|vmxnet|hv_|Hyper-V")


def find(result: Result) -> Mapping[int, Cause]:
    """By CPU that was measured or watched: the most likely cause."""
    activities = result.recording.activities
    return {
        cpu: _cause(cpu, activities[cpu], result)
        if cpu in activities
        else Cause(Kind.NONE, words.NOT_RECORDED)
        for cpu in sorted(activities.keys() | result.histograms.keys())
    }


def _cause(cpu: int, activity: Activity, result: Result) -> Cause:
    events = suspects(activity, result.recording.devices)
    if cpu in result.watched:
        return _of_watched(cpu, events, result)
    exceeded = result.limit_us if cpu in result.exceeded else None
    chosen = choose.cause(events, exceeded)
    if chosen:
        return _of_suspect(chosen, cpu, result)
    if cpu not in result.histograms:
        return Cause(Kind.NONE, words.of_rare(events))
    histogram, frequency = result.histograms[cpu], activity.frequency_mhz
    if frequency and _differ(*frequency) and histogram.longest_us >= _CHANGE_US:
        advice = remedy.of_frequency(result) if cpu in result.isolated else ""
        return Cause(Kind.FREQUENCY, words.of_frequency(*frequency), advice)
    return _of_rare(cpu, histogram, events, result)


def _of_watched(cpu: int, events: tuple[Suspect, ...], result: Result) -> Cause:
    """On an owned CPU the owner's threads run. Which ones these are is not known."""
    owners = [one for one in events if one.role in _OWNERS]
    chosen = choose.cause(events, innocent=_OWNERS)
    if chosen:
        return _of_suspect(chosen, cpu, result)
    return Cause(Kind.NONE, words.of_owner(owners) if owners else words.of_rare(events))


def _of_rare(cpu: int, histogram: Histogram, events: tuple[Suspect, ...], result: Result) -> Cause:
    """The cause if nothing happened often: the longest iteration is one that something stopped."""
    exceeded = cpu in result.exceeded
    if exceeded:
        single = choose.single_short_one(events, histogram.longest_us)
        if single:
            return _of_suspect(single, cpu, result)
    may_be_long = any(one.role not in SHORT for one in events)
    if exceeded or (
        choose.stands_out(histogram.longest_us, histogram.usual_us) and not may_be_long
    ):
        virtual = _is_virtual(result)
        advice = remedy.of_hardware(virtual=virtual) if cpu in result.isolated else ""
        return Cause(Kind.HARDWARE, words.of_hardware(virtual=virtual), advice)
    return Cause(Kind.NONE, words.of_rare(events))


def _of_suspect(suspect: Suspect, cpu: int, result: Result) -> Cause:
    return Cause(RULES[suspect.role].kind, words.of(suspect), remedy.of(suspect, cpu, result))


def _differ(lowest_mhz: int, highest_mhz: int) -> bool:
    return highest_mhz - lowest_mhz > _SAME_FREQUENCY * highest_mhz


def _is_virtual(result: Result) -> bool:
    return any(_VIRTUAL_DEVICE.search(name) for name in result.recording.devices.values())
