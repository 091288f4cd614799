"""The record of a soak: growth, summary and figures."""

from __future__ import annotations

from tests.vm.soak.record import Record, Samples, figures, summary


def sample(pid: int, anonymous: float, descriptors: int = 7) -> Samples:
    """What one process, the daemon, holds."""
    holdings = {"threads": 1, "descriptors": descriptors, "watches": 0}
    return {
        "daemon": {
            "pid": pid,
            "holdings": holdings,
            "memory": {"pss": 20.0, "anonymous": anonymous},
        }
    }


def test_growth_of_the_longest_life_is_found() -> None:
    # The first process has ended, and held more.
    sizes = (10.0, 10.2, 10.4, 10.8, 11.2, 11.6)
    record = Record(1, samples=[sample(1, 30.0), *(sample(2, size) for size in sizes)])
    assert record.growth() == ["the anonymous memory of the daemon grew by 1.20 MiB"]
    held = [sample(2, 10.0, descriptors=count) for count in (7, 7, 8, 8, 8, 8)]
    assert Record(1, samples=held).growth() == [
        "the daemon holds at least 8 descriptors; at first at most 7"
    ]


def test_few_samples_are_no_growth() -> None:
    assert Record(1, samples=[sample(1, 10.0), sample(1, 20.0)]).growth() == []


def test_summary_tells_what_has_happened() -> None:
    record = Record(
        seed=7,
        seconds=90,
        recoveries=[(1.5, "kubelet killed"), (3.0, "CPU taken offline")],
        pods={"created": {"plain": 2, "owner": 1}, "outcomes": {"ran": 1}},
    )
    record.disturbances.update(["kubelet killed", "CPU taken offline"])
    lines = summary(record)
    assert lines[0] == "soak: 1.5 minutes, seed 7"
    assert "  pods created: 3 (owner 1, plain 2)" in lines
    assert "  slowest recovery: 3.0 s, after: CPU taken offline" in lines
    assert lines[-1] == "  nothing was wrong"
    record.wrong.append("CPU 3 has two owners")
    assert summary(record)[-1] == "  wrong: CPU 3 has two owners"
    # A soak that was cut short is no success.
    record = Record(seed=7, cut_short="the kernel panicked")
    assert summary(record)[-1] == "  cut short by the emulation: the kernel panicked"


def test_figures_have_a_limit_for_what_was_wrong() -> None:
    record = Record(1, recoveries=[(2.0, "x"), (4.0, "y"), (3.0, "z")], wrong=["a"])
    found = {figure.name: figure for figure in figures(record)}
    assert found["things that were wrong"].median == 1
    assert found["things that were wrong"].limit == "0"
    assert {figure.command for figure in found.values()} == {"make soak SEED=1"}
    [recovery] = [figure for figure in found.values() if figure.unit == "s"]
    assert (recovery.median, recovery.worst, recovery.runs) == (3.0, 4.0, 3)
