"""The osnoise tracer: settings that are changed and restored, and what its events tell."""

from __future__ import annotations

import json

import pytest

from isolcpus_dp.measure.activity import Noise, Source
from isolcpus_dp.measure.record import osnoise, tracefs
from isolcpus_dp.measure.record.histogram import Tallies, Tally
from isolcpus_dp.measure.record.tracing import Tracing

from .conftest import OPTIONS, MadeUpKernel

ONLINE = frozenset(range(8))
CPUS = frozenset({2, 3})
SOFTIRQS = ("HI", "TIMER", "NET_TX", "NET_RX")


def setting(kernel: MadeUpKernel, name: str) -> str:
    return (kernel.roots.tracefs / "osnoise" / name).read_text().strip()


def test_tracer_runs_on_the_cpus_without_its_own_threads(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise()
    assert Tracing(kernel.roots).start(CPUS, ONLINE) == []
    assert setting(kernel, "options") == "NO_OSNOISE_WORKLOAD"
    assert setting(kernel, "cpus") == "2-3"
    assert (kernel.instance / "current_tracer").read_text() == "osnoise"
    assert kernel.trigger("osnoise/irq_noise") == (
        "hist:keys=desc,common_cpu,duration.log2:vals=duration:size=4096"
        " if (CPU >= 2 && CPU <= 3)\n"
    )


def test_settings_are_restored_and_the_note_removed(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise()
    tracing = Tracing(kernel.roots)
    tracing.start(CPUS, ONLINE)
    tracing.stop()
    assert setting(kernel, "options") == "OSNOISE_WORKLOAD"
    assert setting(kernel, "cpus") == "0-7"
    assert list(kernel.roots.run.iterdir()) == []
    assert not kernel.instance.exists()


def test_next_measurement_restores_what_a_killed_one_changed(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise()
    Tracing(kernel.roots).start(CPUS, ONLINE)  # is killed here
    following = Tracing(kernel.roots)
    assert following.start(frozenset({6}), ONLINE) == []
    assert setting(kernel, "cpus") == "6"
    following.stop()
    assert (setting(kernel, "options"), setting(kernel, "cpus")) == ("OSNOISE_WORKLOAD", "0-7")


def test_note_is_written_before_a_setting_changes(
    kernel: MadeUpKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.add_osnoise()
    noted = []

    def write(path: object, text: str) -> None:
        note = kernel.roots.run / "isolcpus-dp-measure.osnoise"
        if "osnoise" in str(path):
            noted.append(json.loads(note.read_text()))

    monkeypatch.setattr(tracefs, "write", write)
    Tracing(kernel.roots).start(CPUS, ONLINE)
    former = {"options": "OSNOISE_WORKLOAD", "cpus": "0-7"}
    assert noted == [former, former]


def test_unfinished_note_changes_nothing(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise()
    note = kernel.roots.run / "isolcpus-dp-measure.osnoise"
    note.write_text('{"opt')
    osnoise.restore(kernel.roots)
    assert setting(kernel, "options") == OPTIONS
    assert not note.exists()


def test_settings_that_fit_are_not_touched(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise("NO_DEFAULTS NO_OSNOISE_WORKLOAD")
    kernel.trace("osnoise/cpus", "2-3\n")
    Tracing(kernel.roots).start(CPUS, ONLINE)
    assert list(kernel.roots.run.iterdir()) == []
    assert setting(kernel, "options") == "NO_DEFAULTS NO_OSNOISE_WORKLOAD"


def test_long_list_of_cpus_is_not_written(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise()
    kernel.trace("osnoise/cpus", "0-511\n")
    every_second = frozenset(range(0, 512, 2))
    assert Tracing(kernel.roots).start(every_second, frozenset(range(512))) == []
    assert setting(kernel, "cpus") == "0-511"


@pytest.mark.parametrize("place", ["", "instances/rtla/"])
@pytest.mark.parametrize("tracer", ["osnoise", "timerlat"])
def test_tracer_of_another_program_is_left_alone(
    kernel: MadeUpKernel, place: str, tracer: str
) -> None:
    kernel.add_osnoise()
    kernel.trace(f"{place}current_tracer", f"{tracer}\n")
    unseen = Tracing(kernel.roots).start(CPUS, ONLINE)
    assert unseen == [
        "how long each thread, interrupt and softirq ran is unknown: another program uses the"
        f" tracer: see {kernel.roots.tracefs}/{place}current_tracer"
    ]
    assert setting(kernel, "options") == OPTIONS


@pytest.mark.parametrize("options", ["", "DEFAULTS NO_PANIC_ON_STOP"])
def test_tracer_that_needs_its_threads_is_not_used(kernel: MadeUpKernel, options: str) -> None:
    kernel.add_osnoise(options)
    unseen = Tracing(kernel.roots).start(CPUS, ONLINE)
    assert len(unseen) == 1
    assert "cannot run without its own busy threads" in unseen[0]
    assert (kernel.instance / "current_tracer").read_text() == "nop"
    assert setting(kernel, "cpus") == "0-7"


def test_tracer_stops_if_its_events_cannot_be_counted(kernel: MadeUpKernel) -> None:
    kernel.add_osnoise()
    kernel.events.remove("osnoise/nmi_noise")
    unseen = Tracing(kernel.roots).start(CPUS, ONLINE)
    assert unseen == [
        "how long each thread, interrupt and softirq ran is unknown: the kernel has no event"
        " osnoise:nmi_noise"
    ]
    assert (kernel.instance / "current_tracer").read_text() == "nop"
    assert setting(kernel, "options") == "OSNOISE_WORKLOAD"


def test_noises_have_names_sums_and_an_upper_bound() -> None:
    tallies: dict[Source, Tallies] = {
        Source.THREAD: {
            ("0", "20"): Tally(90, 90_000_000),  # idle
            ("4711", "30"): Tally(9, 9_000_000_000),  # the measuring thread
            ("812", "12"): Tally(3, 9_000),
            ("812", "14"): Tally(1, 12_500),
            ("57", "11"): Tally(2, 2_500),
        },
        Source.INTERRUPT: {("local_timer", "13"): Tally(10, 60_000)},
        Source.SOFTIRQ: {("1", "10"): Tally(4, 3_000), ("9", "9"): Tally(1, 300)},
        Source.NMI: {("15",): Tally(1, 20_000)},
    }
    comms = {812: "backup", 57: "kworker/3:1"}
    assert osnoise.noises(tallies, comms, SOFTIRQS, {4711}) == (
        Noise(Source.INTERRUPT, "local_timer", count=10, total_us=60.0, longest_us=8.192),
        Noise(Source.THREAD, "backup/812", count=4, total_us=21.5, longest_us=16.384),
        Noise(Source.NMI, "NMI", count=1, total_us=20.0, longest_us=32.768),
        Noise(Source.SOFTIRQ, "TIMER", count=4, total_us=3.0, longest_us=1.024),
        Noise(Source.THREAD, "kworker/3:1", count=2, total_us=2.5, longest_us=2.048),
        Noise(Source.SOFTIRQ, "9", count=1, total_us=0.3, longest_us=0.512),
    )
