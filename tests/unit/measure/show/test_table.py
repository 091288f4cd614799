"""The table of a measurement, without colours and with them."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from isolcpus_dp.measure.result import Histogram, Result
from isolcpus_dp.measure.show import table
from tests.unit.measure.cause.results import QUIET_HISTOGRAM, activity, result


def test_table_is_readable_at_80_columns(mixed: Result) -> None:
    assert (
        "\n" + table.as_text(mixed, 80) + "\n"
        == """
node-1, kernel 6.12.48-amd64, 2026-03-02T10:15:00Z: 4 CPUs measured for 10 s,
limit 20 us

CPU  longest  99.999 %  > 20 us  likely cause
3    4012 us   4012 us       30  thread burn/812 ran 1200 times (120/s)
4      41 us      1 us       30  interrupt 4 (ttyS0) fired 900 times (90/s), at
                                 most 8 us
5      12 us      9 us        0  the timer interrupt fired 2500 times (250/s)
2       2 us      1 us        0  no frequent disturbance; a page fault of the
                                 loop 0.2/s, the timer interrupt 0.9/s

-> CPU 3: For a container: run isolcpus-dp-pin, which keeps it off these CPUs.
   For a process of the host: run taskset -apc 0-1 PID, and set AllowedCPUs=0-1
   for its slice or init.scope, as isolcpus-dp plan does, or correct
   CPUAffinity= in its unit.
-> CPU 4: Move each: echo 0-1 > /proc/irq/NUMBER/smp_affinity_list
-> CPU 5: nohz_full= stops the tick only while a single thread runs and no timer
   is due. Run: isolcpus-dp check --only nohz-full --only timers

dropped CPU 6: it got the owner default/web/main
watched CPU 7 (default/router/main): nothing but threads that may be the
  owner's: thread forwarder/5 10/s
not seen: cannot read /dev/cpu/2/msr: run modprobe msr
"""
    )


def test_without_a_limit_no_iterations_are_counted(mixed: Result) -> None:
    lines = table.as_text(replace(mixed, limit_us=None), 80).splitlines()
    assert "CPU  longest  99.999 %  likely cause" in lines
    assert "3    4012 us   4012 us  thread burn/812 ran 1200 times (120/s)" in lines


def test_the_same_advice_is_given_once(mixed: Result) -> None:
    alike = result({cpu: activity({"LOC": 2500}) for cpu in (2, 3, 5)}, arguments="isolcpus=2-7")
    text = table.as_text(alike, 80)
    assert text.endswith("\n\n-> CPU 2-3,5: Boot with nohz_full=2-7")
    assert mixed.isolated == alike.isolated


def many(loud: int) -> Result:
    """128 isolated CPUs with the timer interrupt on the last few."""
    activities = {cpu: activity({"LOC": 9 if cpu < 128 - loud else 2500}) for cpu in range(128)}
    histograms = dict.fromkeys(range(128 - loud), QUIET_HISTOGRAM)
    histograms[5] = Histogram({1: 1_000_000, 7: 4}, 7.0, 10.0)
    histograms |= {
        cpu: Histogram({1: 1000, cpu: 9}, float(cpu), 10.0) for cpu in range(128 - loud, 128)
    }
    return replace(
        result(activities, histograms, arguments="isolcpus=2-127"),
        isolated=frozenset(range(2, 128)),
    )


def test_quiet_cpus_of_a_large_host_share_a_row() -> None:
    assert (
        "\n" + table.as_text(many(3), 80) + "\n"
        == """
node-1, kernel 6.12.48-amd64, 2026-03-02T10:15:00Z: 128 CPUs measured for 10 s

CPU    longest  99.999 %  likely cause
127     127 us    127 us  the timer interrupt fired 2500 times (250/s)
126     126 us    126 us  the timer interrupt fired 2500 times (250/s)
125     125 us    125 us  the timer interrupt fired 2500 times (250/s)
0-124     7 us      1 us  no frequent disturbance on these 125 CPUs

-> CPU 125-127: Boot with nohz_full=2-127
"""
    )


def test_loud_cpus_of_a_large_host_have_a_row_each() -> None:
    rows = table.as_text(many(40), 80).split("\n\n")[1].splitlines()[1:]
    assert len(rows) == 41
    assert [row.split()[0] for row in rows[:2]] == ["127", "126"]


def test_cpus_without_a_measurement_have_no_table(mixed: Result) -> None:
    text = table.as_text(replace(mixed, histograms={}, watched=frozenset()), 80)
    assert "likely cause" not in text
    assert "dropped CPU 6: it got the owner default/web/main" in text


def test_dropped_cpu_gets_no_advice() -> None:
    recorded = result({3: activity({"LOC": 2500}), 4: activity({"4": 900})}, {3: QUIET_HISTOGRAM})
    assert "CPU 4" not in table.as_text(recorded, 80)


def test_control_characters_do_not_reach_the_terminal(mixed: Result) -> None:
    hostile = replace(
        mixed,
        host="node\x1b[2J",
        recording=replace(
            mixed.recording,
            activities={3: activity(threads={"x\x1b]0;owned\a[red]/9": 900})},
            unseen=("cannot read \x1b[1m",),
        ),
        owners={7: "a\x9b/b/c"},
    )
    text = table.as_text(hostile, 80)
    assert "thread x?]0;owned?[red]/9 ran 900 times" in text
    assert text.replace("\n", "").isprintable()


def test_iterations_over_the_limit_are_red(mixed: Result) -> None:
    text = table.as_text(mixed, 80, colour=True)
    assert "\x1b[31m4012 us\x1b[0m" in text
    assert "\x1b[31m  12 us" not in text
    assert "\x1b" not in table.as_text(mixed, 80)


@pytest.mark.parametrize(
    ("terminal", "no_color", "coloured"),
    [(True, "", True), (True, "1", False), (False, "", False)],
)
def test_only_a_terminal_gets_colours(
    mixed: Result,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    no_color: str,
    coloured: bool,
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    text = table.for_stdout(mixed)
    assert ("\x1b[31m" in text) is coloured
    assert max(map(len, table.as_text(mixed, 100).splitlines())) <= 100
    if not coloured:
        assert text == table.as_text(mixed, 100)
