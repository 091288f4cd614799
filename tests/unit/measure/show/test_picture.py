"""The picture of a measurement: a cell for each CPU, and the words around them."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from isolcpus_dp.measure.activity import Recording
from isolcpus_dp.measure.cause import find
from isolcpus_dp.measure.cause.cause import Cause, Kind
from isolcpus_dp.measure.result import Dropped, Histogram, Result
from isolcpus_dp.measure.show import picture
from isolcpus_dp.report.map import text
from tests.unit.pictures import NAMESPACE, Rectangle, all_of, rectangle, texts, tooltip

QUIET = Histogram({1: 70_000_000, 2: 354}, 2.0, 60.0)
NOISY = Histogram({1: 69_000_000, 2: 1000, 19: 12, 30: 2, 1024: 1}, 1117.0, 60.0)
THREAD = Cause(Kind.THREAD, "thread backup/812 ran 120 times", "Run: taskset -pc 0-1 812")


def measured(histograms: Mapping[int, Histogram], limit_us: float | None = 20.0) -> Result:
    return Result(
        host="worker-1",
        kernel="6.12.48-amd64",
        began="2026-11-29T06:00:00Z",
        seconds=60.0,
        limit_us=limit_us,
        histograms=histograms,
        recording=Recording({}),
        isolated=frozenset(histograms),
        housekeeping=frozenset({0}),
    )


def drawn(result: Result, causes: Mapping[int, Cause] | None = None) -> ET.Element:
    return ET.fromstring(picture.draw(result, causes or {}))


def frame(group: ET.Element) -> Rectangle:
    found = rectangle(group)
    assert found is not None
    return found


def page(root: ET.Element) -> Rectangle:
    """The area of the picture, as its viewBox says."""
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    return Rectangle(*map(float, root.get("viewBox", "").split()))


def outline(element: ET.Element) -> list[float]:
    return [float(number) for number in re.findall(r"-?[\d.]+", element.get("d", ""))]


def written(
    group: ET.Element, size: float = text.SIZE
) -> Iterator[tuple[ET.Element, float, float]]:
    """The texts of a group, and from where to where each goes horizontally, at its widest."""
    size = float(group.get("font-size", size))
    for element in group:
        if element.tag != f"{NAMESPACE}text":
            yield from written(element, size)
            continue
        x = float(element.get("x", ""))
        width = text.width(len(element.text or "")) * size / text.SIZE
        left = {"end": x - width, "middle": x - width / 2}.get(element.get("text-anchor", ""), x)
        yield element, left, left + width


@pytest.mark.parametrize("number", [1, 2, 6, 64, 128, 300])
def test_every_cpu_has_a_cell_of_its_own(number: int) -> None:
    cpus = range(2, 2 + number)
    root = drawn(measured({cpu: NOISY if cpu % 5 else QUIET for cpu in cpus}))
    cells = all_of(root, "cpu")
    assert [texts(cell)[0] for cell in cells] == [f"CPU {cpu}" for cpu in cpus]
    frames = [frame(cell) for cell in cells]
    assert all(page(root).contains(one) for one in frames)
    assert not any(
        one.overlaps(other) for at, one in enumerate(frames) for other in frames[at + 1 :]
    )
    assert len({(one.width, one.height) for one in frames}) == 1


@pytest.mark.parametrize("number", [1, 6, 64, 128])
def test_all_text_is_inside_of_the_picture(number: int) -> None:
    result = measured(dict.fromkeys(range(number), NOISY))
    sentence = "it got an owner, " + "a-long-name/" * 20
    result = replace(result, dropped=(Dropped(999, sentence),))
    root = drawn(result, dict.fromkeys(range(number), THREAD))
    area = page(root)
    for element, left, right in written(root):
        assert left >= 0, element.text
        assert right <= area.width, element.text
        assert 0 < float(element.get("y", "")) < area.height


@pytest.mark.parametrize("number", [1, 64])
def test_text_of_a_cell_stays_in_it(number: int) -> None:
    root = drawn(
        measured({cpu + 100: NOISY for cpu in range(number)}),
        {cpu + 100: replace(THREAD, words="thread " + "x" * 200) for cpu in range(number)},
    )
    for cell in all_of(root, "cpu"):
        box = frame(cell)
        for element, left, right in written(cell):
            assert box.x <= left, element.text
            assert right <= box.x + box.width, element.text
            assert box.y < float(element.get("y", "")) < box.y + box.height


def test_cpus_are_in_the_order_of_their_numbers() -> None:
    root = drawn(measured({30: NOISY, 4: QUIET, 100: QUIET, 5: NOISY}))
    cells = {texts(cell)[0]: frame(cell) for cell in all_of(root, "cpu")}
    assert list(cells) == ["CPU 4", "CPU 5", "CPU 30", "CPU 100"]
    places = [(box.y, box.x) for box in cells.values()]
    assert places == sorted(places)
    assert "in the order of their numbers" in " ".join(texts(root))


def test_cell_has_longest_and_how_many_were_over_the_limit() -> None:
    [quiet, noisy] = all_of(drawn(measured({2: QUIET, 3: NOISY})), "cpu")
    assert texts(quiet)[:2] == ["CPU 2", "longest 2 us"]
    assert texts(noisy)[:2] == ["CPU 3", "longest 1117 us, 3 over the limit"]


def test_narrow_cell_has_only_the_longest() -> None:
    [cell, *_] = all_of(drawn(measured(dict.fromkeys(range(100, 164), NOISY))), "cpu")
    assert texts(cell)[:2] == ["CPU 100", "1117 us"]


def test_cell_has_the_cause() -> None:
    [cell] = all_of(drawn(measured({3: NOISY}), {3: THREAD}), "cpu")
    assert texts(cell)[-1] == "thread backup/812 ran 120 times"


def test_cause_without_room_is_cut_and_whole_in_the_tooltip() -> None:
    words = "thread a-very-long-name/4711 ran 120 times, and some more words about it"
    histograms = dict.fromkeys(range(64), NOISY)
    [cell, *_] = all_of(drawn(measured(histograms), {0: replace(THREAD, words=words)}), "cpu")
    assert texts(cell)[-1].endswith("\N{HORIZONTAL ELLIPSIS}")
    assert f"likely cause: {words}" in tooltip(cell)


def test_tooltip_has_all_about_a_cpu() -> None:
    [cell] = all_of(drawn(measured({3: NOISY}), {3: THREAD}), "cpu")
    assert tooltip(cell).splitlines() == [
        "CPU 3: 69001015 iterations",
        "longest: 1117 us",
        "99.999 %: at most 2 us",
        "over the limit of 20 us: 3",
        "likely cause: thread backup/812 ran 120 times",
        "Run: taskset -pc 0-1 812",
    ]


def colours(cell: ET.Element) -> list[str | None]:
    return [path.get("fill") for path in cell if path.get("class") == "bars"]


def test_bars_over_the_limit_have_another_colour() -> None:
    [quiet, noisy] = all_of(drawn(measured({2: QUIET, 3: NOISY})), "cpu")
    assert colours(quiet) == ["#0072b2"]
    assert colours(noisy) == ["#0072b2", "#d55e00"]
    assert [cell[1].get("stroke-width") for cell in (quiet, noisy)] == ["1", "2"]


def test_limit_is_a_line_between_the_bars() -> None:
    [cell] = all_of(drawn(measured({3: NOISY})), "cpu")
    [line] = [one for one in cell if one.get("class") == "limit"]
    [within, over] = [outline(path) for path in cell if path.get("class") == "bars"]
    # A bar is M left bottom V top H right V bottom.
    rights, lefts = within[3::5], over[0::5]
    assert line.get("x1") == line.get("x2")
    assert max(rights) <= float(line.get("x1", "")) <= min(lefts)


def test_without_a_limit_there_is_no_line_and_one_colour() -> None:
    root = drawn(measured({2: QUIET, 3: NOISY}, limit_us=None))
    for cell in all_of(root, "cpu"):
        assert colours(cell) == ["#0072b2"]
        assert [one for one in cell if one.get("class") == "limit"] == []
    assert texts(all_of(root, "legend")[0]) == ["iterations", "longest iteration"]
    assert "limit" not in " ".join(texts(root))


def test_all_cells_have_the_same_axes() -> None:
    root = drawn(measured({2: QUIET, 3: NOISY}))
    labels = [texts(cell)[2:] for cell in all_of(root, "cpu")]
    assert labels == [["1", "10", "100", "1k", "10k", "1", "1k", "1M"]] * 2
    [quiet, noisy] = [
        outline(path) for path in root.iter() if path.get("fill") == "#0072b2" and path.get("class")
    ]
    [left, right] = [frame(cell).x for cell in all_of(root, "cpu")]
    assert quiet[0] - left == pytest.approx(noisy[0] - right)


def test_bars_and_marks_are_inside_of_the_cell() -> None:
    for cell in all_of(drawn(measured(dict.fromkeys(range(64), NOISY))), "cpu"):
        box = frame(cell)
        for path in (one for one in cell if one.get("class") == "bars"):
            numbers = outline(path)
            assert all(box.x < x < box.x + box.width for x in numbers[0::5] + numbers[3::5])
            assert all(box.y < y < box.y + box.height for y in numbers[1::5] + numbers[2::5])
        [mark] = [one for one in cell if one.get("class") == "longest"]
        assert box.x < outline(mark)[0] < box.x + box.width - 8


def test_longest_beyond_the_last_bucket_is_on_the_axis() -> None:
    root = drawn(measured({3: replace(NOISY, longest_us=250_000.0)}))
    [cell] = all_of(root, "cpu")
    assert "longest 250000 us, 3 over the limit" in texts(cell)
    assert "1M" in texts(cell)


def test_histogram_with_a_single_bucket_has_a_single_bar() -> None:
    [cell] = all_of(drawn(measured({3: Histogram({1: 5}, 1.0, 60.0)})), "cpu")
    [bars] = [path for path in cell if path.get("class") == "bars"]
    assert (bars.get("d") or "").count("M") == 1


def test_empty_histogram_has_no_bar() -> None:
    [cell] = all_of(drawn(measured({3: Histogram({}, 0.0, 60.0)})), "cpu")
    assert [path for path in cell if path.get("class") in ("bars", "longest")] == []
    assert tooltip(cell).startswith("CPU 3: 0 iterations\nlongest: 0 us")


def test_caption_has_host_kernel_duration_date_and_limit() -> None:
    root = drawn(measured({2: QUIET, 3: NOISY}))
    assert texts(root)[:2] == [
        "isolcpus-dp measure: worker-1, Linux 6.12.48-amd64",
        "CPU 2-3 measured, 60 s from 2026-11-29T06:00:00Z; limit 20 us: exceeded on CPU 3",
    ]
    assert texts(all_of(root, "legend")[0]) == [
        "within the limit",
        "over the limit",
        "limit: 20 us",
        "longest iteration",
    ]


def test_caption_says_that_the_limit_was_not_exceeded() -> None:
    assert texts(drawn(measured({2: QUIET}, limit_us=2.5)))[1].endswith(
        "; limit 2.5 us: not exceeded"
    )


def test_watched_and_dropped_cpus_are_named_below_the_cells() -> None:
    result = replace(
        measured({2: QUIET}),
        watched=frozenset({7, 6}),
        owners={6: "default/upf/main"},
        dropped=(Dropped(9, "oslat failed"), Dropped(3, "it got an owner, default/du/main")),
    )
    assert " ".join(texts(drawn(result, {6: THREAD}))).endswith(
        " watched, without a busy loop: CPU 6, owned by default/upf/main:"
        " thread backup/812 ran 120 times"
        " watched, without a busy loop: CPU 7"
        " dropped: CPU 3: it got an owner, default/du/main"
        " dropped: CPU 9: oslat failed"
    )


def test_result_without_a_measured_cpu_has_a_caption() -> None:
    result = replace(measured({}), dropped=(Dropped(3, "it got an owner"),))
    words = texts(drawn(result))
    assert words[1].startswith("no CPU was measured, 60 s from")
    assert words[-1] == "dropped: CPU 3: it got an owner"


def test_names_of_others_cannot_break_the_picture() -> None:
    evil = '</text><script>alert("&amp;")</script>\x1b[31m\x00\ud800\u202e'
    result = replace(measured({3: NOISY}), host=evil, owners={4: evil}, watched=frozenset({4}))
    document = picture.draw(result, {3: Cause(Kind.THREAD, evil, evil)})
    root = ET.fromstring(document.encode())
    assert list(root.iter(f"{NAMESPACE}script")) == []
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", document)
    assert 'alert("&amp;")' in tooltip(all_of(root, "cpu")[0])


def test_what_was_not_seen_is_in_the_description() -> None:
    result = replace(measured({3: NOISY}), recording=Recording({}, unseen=("no tracefs",)))
    description = drawn(result).find(f"{NAMESPACE}desc")
    assert description is not None
    assert (description.text or "").splitlines()[-1] == "not seen: no tracefs"


def test_same_result_gives_the_same_picture() -> None:
    one = picture.draw(measured({2: QUIET, 3: NOISY}), {3: THREAD, 2: THREAD})
    other = picture.draw(measured({3: NOISY, 2: QUIET}), {2: THREAD, 3: THREAD})
    assert one == other


def test_128_noisy_cpus_take_less_than_a_megabyte() -> None:
    noisy = Histogram({length: 10**9 // length**3 + 1 for length in range(1, 1025)}, 5000.0, 60.0)
    document = picture.draw(measured(dict.fromkeys(range(128), noisy)), {})
    assert len(document) < 1_000_000


def test_file_has_the_picture_with_the_causes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(find, "find", lambda _: {3: THREAD})
    picture.write(measured({3: NOISY}), tmp_path / "now.svg")
    expected = picture.draw(measured({3: NOISY}), {3: THREAD})
    assert (tmp_path / "now.svg").read_text(encoding="utf-8") == expected


def test_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(picture.PictureError, match=r"now\.svg cannot be written"):
        picture.write(measured({3: NOISY}), tmp_path / "nowhere/now.svg")
