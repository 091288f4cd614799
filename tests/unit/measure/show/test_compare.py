"""What changed since an earlier measurement."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isolcpus_dp.measure.cause.cause import Cause, Kind
from isolcpus_dp.measure.result import Result
from isolcpus_dp.measure.show import compare, difference, document
from isolcpus_dp.measure.show.difference import Verdict
from isolcpus_dp.measure.show.document import Document, Measured

TICK = Cause(Kind.TICK, "the timer interrupt fired 2500 times (250/s)")
QUIET = Cause(Kind.NONE, "no disturbance recorded")


def earlier(cpus: dict[int, Measured]) -> Document:
    return Document("node-1", "6.12.48-amd64", "2026-03-01T08:00:00Z", 10.0, 20.0, cpus)


def measured(longest: float, usual: float = 1.0, over: int = 0, cause: Cause = QUIET) -> Measured:
    return Measured(10.0, longest, usual, over, cause)


def test_each_cpu_says_what_changed(mixed: Result) -> None:
    before = earlier(
        {
            2: measured(300.0, 9.0, 7, TICK),
            3: measured(12.0),
            4: measured(40.5, 1.0, 29, Cause(Kind.DEVICE, "interrupt 4 (ttyS0)")),
            5: measured(11.0, 9.0, 0, Cause(Kind.IPI, "interrupt CAL of other CPUs fired")),
            6: measured(2.0),
        }
    )
    assert (
        "\n" + compare.as_text(before, mixed, 80) + "\n"
        == """
compared with node-1, 2026-03-01T08:00:00Z:
CPU 3 worse: longest 12 -> 4012 us, 99.999 % 1 -> 4012 us, over 20 us 0 -> 30
  cause:  thread burn/812 ran 1200 times (120/s)
  before: no disturbance recorded
CPU 2 better: longest 300 -> 2 us, 99.999 % 9 -> 1 us, over 20 us 7 -> 0
  cause:  no frequent disturbance; a page fault of the loop 0.2/s, the timer
          interrupt 0.9/s
  before: the timer interrupt fired 2500 times (250/s)
CPU 5 equal: longest 12 us, 99.999 % 9 us, over 20 us 0
  cause:  the timer interrupt fired 2500 times (250/s)
  before: interrupt CAL of other CPUs fired
equal (within 1 us or 10 %): CPU 4-5
measured only before: CPU 6
"""
    )


def test_same_measurement_is_equal(mixed: Result) -> None:
    assert compare.as_text(document.of(mixed), mixed, 80) == (
        "compared with node-1, 2026-03-02T10:15:00Z:\nequal (within 1 us or 10 %): CPU 2-5"
    )


def test_cpu_that_is_new_is_listed(mixed: Result) -> None:
    before = document.of(mixed)
    fewer = replace(before, cpus={2: before.cpus[2]})
    assert "\nmeasured only now: CPU 3-5" in compare.as_text(fewer, mixed, 80)


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [
        (measured(10.0), measured(11.0), Verdict.EQUAL),
        (measured(10.0), measured(11.5), Verdict.WORSE),
        (measured(100.0), measured(110.0), Verdict.EQUAL),
        (measured(100.0), measured(111.0), Verdict.WORSE),
        (measured(100.0), measured(89.0), Verdict.BETTER),
        (measured(100.0, usual=5.0), measured(50.0, usual=9.0), Verdict.WORSE),
        (measured(30.0, over=10), measured(30.0, over=11), Verdict.EQUAL),
        (measured(30.0, over=10), measured(30.0, over=12), Verdict.WORSE),
        (measured(30.0, over=4), measured(30.0), Verdict.BETTER),
    ],
)
def test_small_changes_are_equal(before: Measured, now: Measured, verdict: Verdict) -> None:
    [found] = difference.differences(earlier({3: before}), earlier({3: now}))
    assert found.verdict is verdict


def test_largest_changes_come_first() -> None:
    before = earlier({cpu: measured(100.0) for cpu in (2, 3, 4, 5, 6)})
    now = earlier(
        {
            2: measured(150.0),
            3: measured(40.0),
            4: measured(900.0),
            5: measured(100.0),
            7: measured(1.0),
        }
    )
    found = difference.differences(before, now)
    assert [(one.cpu, one.verdict.value) for one in found] == [
        (4, "worse"),
        (2, "worse"),
        (3, "better"),
        (5, "equal"),
        (7, "new"),
        (6, "gone"),
    ]


def test_measurements_that_differ_get_a_warning(mixed: Result) -> None:
    now = document.of(mixed)
    before = replace(
        now,
        host="node\x1b[2J",
        kernel="6.1",
        limit_us=None,
        cpus={cpu: replace(one, seconds=60.0) for cpu, one in now.cpus.items()},
    )
    assert compare.as_text(before, mixed, 80).splitlines()[1:7] == [
        "warning: the hosts differ: node?[2J before, node-1 now",
        "warning: the kernels differ: 6.1 before, 6.12.48-amd64 now",
        "warning: the durations differ: 60 s before, 10 s now; the longer one sees more",
        "         of what is rare",
        "warning: the limits differ: none before, 20 us now; iterations over the limit",
        "         are not compared",
    ]


def test_iterations_over_different_limits_are_not_compared(mixed: Result) -> None:
    now = document.of(mixed)
    cpus = {cpu: replace(one, over_limit=9000) for cpu, one in now.cpus.items()}
    before = replace(now, limit_us=5.0, cpus=cpus)
    text = compare.as_text(before, mixed, 80)
    assert text.endswith("\nequal (within 1 us or 10 %): CPU 2-5")
