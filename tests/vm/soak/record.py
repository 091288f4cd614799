"""The record of a soak, its summary, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.figures.figure import Figure, of_values
from tests.testbed.storm.holdings import Holdings, Memory
from tests.testbed.storm.storm import Sample, growth

# Memory that was not touched before is no leak.
GROWTH_MIB = 1.0
# Fewer samples say nothing.
_FEWEST_SAMPLES = 6

Samples = Mapping[str, Mapping[str, Any]]


@dataclass
class Record:
    """What has happened; `wrong` has a sentence for each thing that should not have."""

    seed: int
    seconds: float = 0.0
    disturbances: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[float, str]] = field(default_factory=list)  # seconds, after what
    comparisons: int = 0
    hangs: int = 0  # containerd did not answer, and was restarted; the cause is not determined
    lost: int = 0  # processes of containers that a killed containerd forgot; they were killed
    pods: dict[str, dict[str, int]] = field(default_factory=dict)  # as the author counted them
    samples: list[Samples] = field(default_factory=list)  # of the second half
    entries: Counter[str] = field(default_factory=Counter)  # of the journal, by kind
    wrong: list[str] = field(default_factory=list)
    cut_short: str = ""  # why the emulation ended early

    def lives(self) -> Iterator[tuple[str, list[Sample]]]:
        """By name of a process: the samples of its longest life; of all workers together.

        A worker ends with its kubelet, and the next one has all that its parent has.
        """
        for name in self.samples[0] if self.samples else ():
            seen = [samples[name] for samples in self.samples]
            if name != "worker":
                [(pid, _)] = Counter(one["pid"] for one in seen).most_common(1)
                seen = [one for one in seen if one["pid"] == pid]
            yield name, [_sample(one) for one in seen]

    def growth(self) -> list[str]:
        """What the processes hold more of at the end than in the middle, as sentences."""
        return [
            sentence
            for name, samples in self.lives()
            if len(samples) >= _FEWEST_SAMPLES
            for sentence in growth([{name: one} for one in samples], GROWTH_MIB)
        ]


def _sample(found: Mapping[str, Any]) -> Sample:
    return Sample(Holdings(**found["holdings"]), Memory(**found["memory"]))


def summary(record: Record) -> list[str]:
    """The lines of the summary."""
    lines = [f"soak: {record.seconds / 60:.1f} minutes, seed {record.seed}"]
    created = record.pods.get("created", {})
    lines.append(_line("pods created", sum(created.values()), created))
    outcomes = record.pods.get("outcomes", {})
    lines.append(_line("pods removed", sum(outcomes.values()), outcomes))
    lines.append(_line("disturbances", sum(record.disturbances.values()), record.disturbances))
    if record.recoveries:
        seconds, after = max(record.recoveries)
        lines.append(f"  slowest recovery: {seconds:.1f} s, after: {after}")
    lines.append(f"  comparisons of the books with the containers: {record.comparisons}")
    lines.append(f"  times that containerd did not answer, ended by its restart: {record.hangs}")
    lines.append(f"  processes of containers that containerd lost, killed: {record.lost}")
    lines.append(
        _line("warnings and errors in the journal", sum(record.entries.values()), record.entries)
    )
    for name, samples in record.lives():
        processes = len({one[name]["pid"] for one in record.samples})
        lines.append(f"  {name}, processes in the second half: {processes}")
        lines.append(f"  {name}, first of {len(samples)} samples: {_shown(samples[0])}")
        lines.append(f"  {name}, last: {_shown(samples[-1])}")
        sizes = [f"{one.memory.anonymous:.2f}" for one in samples]
        lines.append(f"  {name}, anonymous MiB: {' '.join(sizes[:: -(-len(sizes) // 10)])}")
    lines += [f"  wrong: {sentence}" for sentence in record.wrong]
    if record.cut_short:
        lines.append(f"  cut short by the emulation: {record.cut_short}")
    elif not record.wrong:
        lines.append("  nothing was wrong")
    return lines


def figures(record: Record) -> list[Figure]:
    """The figures for the table of measurements."""
    command = f"make soak SEED={record.seed}"

    def number(name: str, value: float, unit: str = "", limit: str = "") -> Figure:
        return Figure(command, name, unit, value, limit=limit)

    return [
        number("duration", record.seconds / 60, "min"),
        number("pods that were created", sum(record.pods.get("created", {}).values())),
        number("disturbances", sum(record.disturbances.values())),
        *(number(f"disturbances: {name}", times) for name, times in record.disturbances.items()),
        number("comparisons of the books with the containers", record.comparisons),
        number("times that containerd did not answer, ended by its restart", record.hangs),
        number("processes of containers that containerd lost, killed", record.lost),
        *(
            [
                of_values(
                    command,
                    "from a disturbance to all devices reported and the runtime connected",
                    "s",
                    [seconds for seconds, _ in record.recoveries],
                )
            ]
            if record.recoveries
            else []
        ),
        number("things that were wrong", len(record.wrong), limit="0"),
        *(
            number(
                f"growth of the anonymous memory of the {name}",
                grown(samples),
                "MiB",
                f"at most {GROWTH_MIB:g}",
            )
            for name, samples in record.lives()
            if len(samples) >= _FEWEST_SAMPLES
        ),
    ]


def grown(samples: Sequence[Sample]) -> float:
    """From the least in the first third of the samples to the least in the last third, in MiB."""
    third = -(-len(samples) // 3)
    early, late = (
        min(one.memory.anonymous for one in part) for part in (samples[:third], samples[-third:])
    )
    return late - early


def _line(what: str, count: int, parts: Mapping[str, int]) -> str:
    listed = ", ".join(f"{name} {times}" for name, times in sorted(parts.items()))
    return f"  {what}: {count}" + (f" ({listed})" if listed else "")


def _shown(sample: Sample) -> str:
    return f"{sample.holdings}, {sample.memory}"
