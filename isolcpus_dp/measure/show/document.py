"""A measurement as JSON, described in docs/measure.schema.json, and read again for a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isolcpus_dp.host.cpulist import render
from isolcpus_dp.measure.cause import find
from isolcpus_dp.measure.show import difference
from isolcpus_dp.measure.show.earlier import VERSION, Document, DocumentError, Measured, read

if TYPE_CHECKING:
    from isolcpus_dp.measure.activity import Activity, Recording
    from isolcpus_dp.measure.cause.cause import Cause
    from isolcpus_dp.measure.result import Result

__all__ = ["Document", "DocumentError", "Measured", "as_json", "of", "read"]


def of(result: Result) -> Document:
    """The measurement, as far as another one is compared with it."""
    return _document(result, find.find(result))


def as_json(result: Result, before: Document | None = None) -> str:
    """All of a measurement, and what changed since an earlier one."""
    causes = find.find(result)
    now = _document(result, causes)
    recording = result.recording
    content = {
        "version": VERSION,
        "host": result.host,
        "kernel": result.kernel,
        "arguments": result.arguments,
        "began": result.began,
        "seconds": result.seconds,
        "limit_us": result.limit_us,
        "isolated": render(result.isolated),
        "housekeeping": render(result.housekeeping),
        "cpus": [
            {
                **_figures(cpu, measured),
                "histogram": {
                    str(length): count
                    for length, count in sorted(result.histograms[cpu].counts.items())
                },
                "activity": _activity_of(cpu, recording),
            }
            for cpu, measured in now.cpus.items()
        ],
        "watched": [
            {
                "cpu": cpu,
                "owner": result.owners.get(cpu),
                "cause": _cause(causes[cpu]) if cpu in causes else None,
                "activity": _activity_of(cpu, recording),
            }
            for cpu in sorted(result.watched)
        ],
        "dropped": [{"cpu": one.cpu, "reason": one.reason} for one in result.dropped],
        "owners": {str(cpu): owner for cpu, owner in sorted(result.owners.items())},
        "devices": dict(recording.devices),
        "unseen": list(recording.unseen),
    }
    if before:
        content["compare"] = _comparison(before, now)
    return json.dumps(content, indent=2)


def _document(result: Result, causes: Mapping[int, Cause]) -> Document:
    limit = result.limit_us
    return Document(
        host=result.host,
        kernel=result.kernel,
        began=result.began,
        seconds=result.seconds,
        limit_us=limit,
        cpus={
            cpu: Measured(
                seconds=histogram.seconds,
                longest_us=histogram.longest_us,
                p99_999_us=histogram.usual_us,
                over_limit=None if limit is None else histogram.over(limit),
                cause=causes[cpu],
            )
            for cpu, histogram in sorted(result.histograms.items())
        },
    )


def _figures(cpu: int, measured: Measured) -> dict[str, Any]:
    return {
        "cpu": cpu,
        "seconds": measured.seconds,
        "longest_us": measured.longest_us,
        "p99_999_us": measured.p99_999_us,
        "over_limit": measured.over_limit,
        "cause": _cause(measured.cause),
    }


def _cause(cause: Cause) -> dict[str, str]:
    return {"kind": cause.kind.value, "words": cause.words, "advice": cause.advice}


def _activity_of(cpu: int, recording: Recording) -> dict[str, Any] | None:
    return _activity(recording.activities[cpu]) if cpu in recording.activities else None


def _activity(activity: Activity) -> dict[str, Any]:
    loop, noises, frequency = activity.loop, activity.noises, activity.frequency_mhz
    return {
        "seconds": activity.seconds,
        "interrupts": dict(activity.interrupts),
        "softirqs": dict(activity.softirqs),
        "threads": None if activity.threads is None else dict(activity.threads),
        "works": None if activity.works is None else dict(activity.works),
        "noises": None
        if noises is None
        else [
            {
                "source": noise.source.value,
                "name": noise.name,
                "count": noise.count,
                "total_us": noise.total_us,
                "longest_us": noise.longest_us,
            }
            for noise in noises
        ],
        "loop": None
        if loop is None
        else {
            "involuntary_switches": loop.involuntary_switches,
            "migrations": loop.migrations,
            "minor_faults": loop.minor_faults,
            "major_faults": loop.major_faults,
        },
        "frequency_mhz": None
        if frequency is None
        else {"lowest": frequency[0], "highest": frequency[1]},
        "smis": activity.smis,
    }


def _comparison(before: Document, now: Document) -> dict[str, Any]:
    return {
        "host": before.host,
        "kernel": before.kernel,
        "began": before.began,
        "warnings": list(difference.warnings(before, now)),
        "cpus": [
            {
                "cpu": one.cpu,
                "verdict": one.verdict.value,
                "before": _figures(one.cpu, one.before) if one.before else None,
                "now": _figures(one.cpu, one.now) if one.now else None,
            }
            for one in difference.differences(before, now)
        ],
    }
