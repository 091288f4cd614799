"""The figures that the programs of bench/ hand over, and the page and picture made from them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from bench.figures import __main__ as command
from bench.figures import conditions, figure, page, plot, records
from bench.figures.conditions import Conditions
from bench.figures.figure import Figure, Growth
from bench.figures.records import Run
from tests.book import ROOT

QUIET = Conditions(
    day="2026-11-29",
    processor="AMD EPYC",
    cpus=2,
    memory_gib=7.8,
    system="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0",
    python="3.11.2",
    grpcio="1.51.1",
    load=0.05,
    is_root=True,
)
LATENCY = Figure(
    "bench/service latency", "kubelet's socket to devices", "ms", 4.04, 10.12, 50, "idle host",
    "at most 4 and 7 (median, worst)",
)  # fmt: skip
COUNT = Figure("bench/service admission", "pods rejected (count)", "", 3.0, None, 40)


def grown(name: str, unit: str, dimension: str, values: dict[int, float]) -> list[Figure]:
    return [
        Figure("bench/growth", name, unit, value, 2 * value, 5, growth=Growth(dimension, size))
        for size, value in values.items()
    ]


GROWN = [
    *grown("start", "ms", "CPUs", {8: 100, 2048: 400}),
    *grown("GetPreferredAllocation", "ms", "CPUs", {8: 1, 2048: 100}),
    *grown("private memory", "MiB", "pools", {1: 20}),
]


def run(figures: list[Figure], conditions: Conditions = QUIET) -> Run:
    return Run("bench", conditions, tuple(figures))


def test_figure_of_times_is_median_and_worst_in_ms() -> None:
    found = figure.of_seconds("bench/a", "a", [0.004, 0.002, 0.003], condition="idle host")
    assert found == Figure("bench/a", "a", "ms", 3.0, 4.0, 3, "idle host")


def test_single_value_is_no_worst_one() -> None:
    found = figure.of_values("bench/a", "memory", "MiB", [30.5])
    assert found == Figure("bench/a", "memory", "MiB", 30.5, None, 1)


def test_figure_without_a_value_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^bench/a: status: no value was measured$"):
        figure.of_values("bench/a", "status", "ms", [])


def test_figures_that_are_written_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "build" / "figures.jsonl"
    records.append(file, [QUIET])
    records.append(file, [LATENCY, COUNT])
    records.append(file, GROWN)
    assert records.read(file) == Run("figures", QUIET, (LATENCY, COUNT, *GROWN))


def test_figures_are_handed_over_to_the_file_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIGURES", str(tmp_path / "figures"))
    records.hand_over(LATENCY, COUNT)
    assert len((tmp_path / "figures").read_text().splitlines()) == 2
    monkeypatch.delenv("FIGURES")
    records.hand_over(LATENCY)
    assert len((tmp_path / "figures").read_text().splitlines()) == 2


@pytest.mark.parametrize("wrong", ["no JSON", "[]", '{"figure": {"name": "a"}}', "7"])
def test_line_that_is_no_record_is_named(wrong: str) -> None:
    text = f"{records.line(QUIET)}{wrong}\n"
    with pytest.raises(ValueError, match=r"^line 2 is not a record of a measurement: "):
        records.parse("bench", text)


def test_run_without_conditions_is_an_error() -> None:
    with pytest.raises(ValueError, match="no line with the conditions"):
        records.parse("bench", records.line(LATENCY))


def test_conditions_of_a_host_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC\nprocessor\t: 1\n")
    (tmp_path / "meminfo").write_text("MemTotal:        8000000 kB\nMemFree: 1 kB\n")
    (tmp_path / "loadavg").write_text("0.42 0.31 0.20 1/234 5678\n")
    (tmp_path / "os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12"\n')
    now = datetime(2026, 11, 29, 23, 59, tzinfo=timezone.utc)
    found = conditions.read(tmp_path, tmp_path / "os-release", now, "1.51.1")
    assert (found.day, found.processor) == ("2026-11-29", "AMD EPYC")
    assert (found.memory_gib, found.load) == (7.6, 0.42)
    assert (found.system, found.grpcio) == ("Debian GNU/Linux 12", "1.51.1")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.01234, "0.0123"), (4.04, "4.04"), (12.345, "12.3"), (345.6, "346"),
     (4713.0, "4713"), (2.0, "2")],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert page.number(value) == text


def test_page_has_a_row_for_each_figure() -> None:
    text = page.section(run([LATENCY, COUNT]))
    assert (
        "| kubelet's socket to devices | idle host | 4.04 (10.1) ms | 50 "
        "| at most 4 and 7 (median, worst) | `bench/service latency` |\n"
    ) in text
    assert "| pods rejected (count) |  | 3 | 40 |  | `bench/service admission` |\n" in text
    assert "How figures grow" not in text


def test_page_states_the_conditions_of_the_run() -> None:
    text = page.section(run([LATENCY]))
    assert "| machine | AMD EPYC, 2 CPUs, 7.80 GiB |\n" in text
    assert "| load average before the run | 0.05 |\n" in text
    assert "not started as root" not in text
    assert "not started as root" in page.section(run([LATENCY], replace(QUIET, is_root=False)))


def test_page_has_a_column_for_each_size() -> None:
    text = page.section(run(GROWN))
    assert "![How figures grow with CPUs and pools](measurements.svg)" in text
    assert (
        "| by number of CPUs | conditions | 8 | 2048 | runs | command |\n"
        "|---|---|---|---|---|---|\n"
        "| start, ms |  | 100 (200) | 400 (800) | 5 | `bench/growth` |\n"
        "| GetPreferredAllocation, ms |  | 1 (2) | 100 (200) | 5 | `bench/growth` |\n"
    ) in text
    assert "| private memory, MiB |  | 20 (40) | 5 | `bench/growth` |\n" in text


def test_terminal_gets_the_table_with_aligned_columns() -> None:
    lines = list(page.table_of(page.section(run([LATENCY, COUNT]))))
    first, second = (line for line in lines if "bench/service" in line)
    assert first.index("bench/service") == second.index("bench/service")
    assert not any("|" in line for line in lines)


def test_picture_has_a_plot_for_each_dimension_and_unit() -> None:
    found = plot.plots([LATENCY, *GROWN])
    assert [(one.dimension, one.unit) for one in found] == [("CPUs", "ms"), ("pools", "MiB")]
    assert found[0].lines == {
        "start": {8: 100.0, 2048: 400.0},
        "GetPreferredAllocation": {8: 1.0, 2048: 100.0},
    }


def test_picture_draws_a_line_for_each_figure() -> None:
    root = ET.fromstring(plot.draw(GROWN))
    lines = root.findall(".//{*}polyline")
    titles = [line.findtext("{*}title") for line in lines]
    assert titles == [
        "start: 8: 100, 2048: 400",
        "GetPreferredAllocation: 8: 1, 2048: 100",
        "private memory: 1: 20",
    ]
    # The smallest and the largest value are at the ends of both axes: 340 pixels and two decades
    # and a half of 200.
    [first, last] = (point.split(",") for point in lines[1].attrib["points"].split())
    assert float(last[0]) - float(first[0]) == 340.0
    assert float(first[1]) - float(last[1]) == pytest.approx(200 * 2 / 2.699, abs=0.2)


def test_picture_contains_everything_that_it_draws() -> None:
    root = ET.fromstring(plot.draw(GROWN))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for text in root.iterfind(".//{*}text"):
        assert 0 <= float(text.attrib["x"]) < width
        assert 0 <= float(text.attrib["y"]) < height


def test_axis_ends_at_round_numbers() -> None:
    assert plot.axis([3.0, 70.0], 100) == plot.Axis(2.0, 100.0, 100)
    assert plot.axis([0.2, 0.2], 100) == plot.Axis(0.2, 0.4, 100)
    assert plot.Axis(1.0, 100.0, 200).place(10.0) == 100.0


def test_short_axis_has_more_labels() -> None:
    assert plot.Axis(0.5, 200.0, 100).labels() == [0.5, 1.0, 10.0, 100.0, 200.0]
    assert plot.Axis(10.0, 50.0, 100).labels() == [10.0, 20.0, 50.0]
    assert plot.Axis(0.1, 1.0, 100).labels() == [0.1, 0.2, 0.5, 1.0]


def test_value_of_zero_is_not_drawn() -> None:
    assert plot.plots(grown("a", "ms", "CPUs", {8: 0})) == []


def test_page_has_a_section_for_each_run_in_order() -> None:
    storm = Run("storm", replace(QUIET, guest="Debian 13, emulated"), (COUNT,))
    runs = page.in_order([storm, run([LATENCY])])
    text = page.render(runs)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == ["# Measurements", "## make bench", "## make storm"]
    of_bench, of_storm = text.split("## make storm")
    assert "| Python | 3.11.2, grpcio 1.51.1 |" in of_bench
    assert "| virtual machine | Debian 13, emulated |" in of_storm
    assert "grpcio" not in of_storm


def test_unknown_kind_of_run_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^'other' is not a kind .* bench, upgrade, storm, soak$"):
        page.in_order([Run("other", QUIET, ())])


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the file of the run is, and `results` and `docs`."""
    (tmp_path / "docs").mkdir()
    monkeypatch.setenv("FIGURES", str(tmp_path / "bench.jsonl"))
    return tmp_path


def finish(directory: Path) -> int:
    return command.main(["finish", str(directory / "results"), str(directory / "docs")])


def test_run_ends_with_the_page_the_picture_and_the_table(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records.append(directory / "bench.jsonl", [QUIET, LATENCY, *GROWN])
    assert finish(directory) == 0
    found = run([LATENCY, *GROWN])
    assert records.read(directory / "results/bench.jsonl") == found
    assert (directory / "docs/measurements.md").read_text() == page.render([found])
    assert (directory / "docs/measurements.svg").read_text() == plot.draw(GROWN)
    assert "kubelet's socket to devices" in capsys.readouterr().out


def test_runs_of_other_kinds_stay_on_the_page(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = directory / "results/storm.jsonl"
    records.append(other, [QUIET, COUNT])
    records.append(directory / "bench.jsonl", [QUIET, LATENCY])
    assert finish(directory) == 0
    text = (directory / "docs/measurements.md").read_text()
    assert text == page.render([run([LATENCY]), Run("storm", QUIET, (COUNT,))])
    assert "pods rejected" not in capsys.readouterr().out


def test_run_without_conditions_changes_nothing(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = directory / "bench.jsonl"
    file.write_text(records.line(LATENCY))
    assert finish(directory) == 1
    assert capsys.readouterr().err == (
        f"bench: {file}: there is no line with the conditions of the run\n"
    )
    assert not (directory / "results").exists()
    assert not list((directory / "docs").iterdir())


def test_run_begins_with_its_conditions(directory: Path) -> None:
    file = directory / "bench.jsonl"
    file.write_text("of an earlier run\n")
    assert command.main(["begin"]) == 0
    found = records.read(file)
    assert (found.kind, found.figures, found.conditions.guest) == ("bench", (), "")


def test_page_of_measurements_is_that_of_the_kept_results(tmp_path: Path) -> None:
    """A figure that was edited by hand, or a result without its page, is found here."""
    assert command.main(["page", str(ROOT / "bench/results"), str(tmp_path)]) == 0
    for name in ("measurements.md", "measurements.svg"):
        assert (tmp_path / name).read_text() == (ROOT / "docs" / name).read_text()


def programs() -> list[Path]:
    """Those of `make bench` and `make storm`."""
    return sorted(path for path in (ROOT / "bench").iterdir() if path.is_file())


@pytest.mark.parametrize("program", programs(), ids=lambda path: str(path.name))
def test_every_program_hands_over_its_figures(program: Path) -> None:
    text = program.read_text()
    assert "records.hand_over(" in text
    # The command of a figure is that program.
    named = set(re.findall(r'"(bench/\w+)', text))
    assert named == {f"bench/{program.name}"}
