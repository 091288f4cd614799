"""CPU lists, compared with simple references that share no code with the module."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isolcpus_dp.host.cpulist import (
    CpuListError,
    parse,
    parse_argument,
    parse_configured,
    parse_mask,
    render,
    render_argument,
    render_mask,
)

LAST = 40

cpu_sets = st.frozensets(st.integers(0, 300))
ranges = st.tuples(st.integers(0, LAST), st.integers(0, LAST)).map(sorted)


def plainly_rendered(cpus: frozenset[int]) -> str:
    """The kernel's text, found as runs of ones in a mask."""
    mask = "".join("1" if cpu in cpus else "0" for cpu in range(301))
    runs = [(run.start(), run.end() - 1) for run in re.finditer("1+", mask)]
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


@dataclass(frozen=True)
class Term:
    """One part of a configured list, and its CPUs."""

    text: str
    cpus: set[int]


@st.composite
def terms(draw: st.DrawFn) -> Term:
    low, high = draw(ranges)
    form = draw(st.sampled_from(["number", "last", "range", "to the last", "all"]))
    if form == "number":
        return Term(str(low), {low})
    if form == "last":
        return Term("N", {LAST})
    if form == "range":
        text = f"{low}-{high}"
    elif form == "to the last":
        text, high = f"{low}-N", LAST
    else:
        text, low, high = draw(st.sampled_from(["all", "All", "ALL"])), 0, LAST
    if draw(st.booleans()):
        return Term(text, {cpu for cpu in range(LAST + 1) if low <= cpu <= high})
    size = draw(st.integers(1, 50))
    used = draw(st.integers(1, size))
    cpus: set[int] = set()
    for start in range(low, high + 1, size):
        for cpu in range(start, start + used):
            if cpu <= high:
                cpus.add(cpu)
    return Term(f"{text}:{used}/{size}", cpus)


@given(cpu_sets)
def test_rendered_list_is_parsed_to_the_same_cpus(cpus: frozenset[int]) -> None:
    assert parse(render(cpus)) == cpus


@given(cpu_sets)
def test_list_is_rendered_as_by_the_kernel(cpus: frozenset[int]) -> None:
    assert render(cpus) == plainly_rendered(cpus)


@given(st.lists(st.integers(0, 300)))
def test_rendering_ignores_order_and_repetition(cpus: list[int]) -> None:
    assert render(cpus) == plainly_rendered(frozenset(cpus))


@given(st.lists(st.integers(0, 8191)))
def test_numbers_are_parsed_in_any_order(cpus: list[int]) -> None:
    assert parse(",".join(str(cpu) for cpu in cpus)) == set(cpus)


@given(st.lists(ranges))
def test_ranges_may_overlap(several: list[list[int]]) -> None:
    expected = {cpu for low, high in several for cpu in range(301) if low <= cpu <= high}
    assert parse(",".join(f"{low}-{high}" for low, high in several)) == expected


@given(cpu_sets)
def test_configured_list_may_have_the_kernels_format(cpus: frozenset[int]) -> None:
    assert parse_configured(plainly_rendered(cpus), 300) == cpus


@given(st.lists(terms()), st.sampled_from([",", ", ", " ,\t"]))
def test_configured_expressions_follow_the_kernels_rules(parts: list[Term], comma: str) -> None:
    expected = {cpu for part in parts for cpu in part.cpus}
    assert parse_configured(comma.join(part.text for part in parts), LAST) == expected


def wrong_part(attempt: Callable[[], frozenset[int]]) -> CpuListError | None:
    """The parser's error, or None; any other exception fails the test."""
    try:
        cpus = attempt()
    except CpuListError as error:
        return error
    assert all(0 <= cpu <= 8191 for cpu in cpus)
    return None


@given(st.text() | st.text("0123456789-,:/Nal \n"))
def test_any_text_is_parsed_or_its_invalid_part_named(text: str) -> None:
    parts = [part.strip() for part in text.split(",")]
    for error in (
        wrong_part(lambda: parse(text)),
        wrong_part(lambda: parse_configured(text, LAST)),
    ):
        assert error is None or error.part.strip() in parts
        assert error is None or str(error).startswith(f"'{error.part}' ")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        ("\n", set()),
        ("0", {0}),
        ("2-3,6-7", {2, 3, 6, 7}),
        ("2-3,6-7\n", {2, 3, 6, 7}),
        ("7,2", {2, 7}),
        ("3-3", {3}),
        ("007", {7}),
        ("63-65,8191", {63, 64, 65, 8191}),
    ],
)
def test_kernel_list_is_parsed(text: str, cpus: set[int]) -> None:
    assert parse(text) == cpus


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2-x", "'2-x' is neither a CPU number nor a range such as 2-3"),
        ("2-3,6-", "'6-' is neither a CPU number nor a range such as 2-3"),
        ("-1", "'-1' is neither a CPU number nor a range such as 2-3"),
        ("-", "'-' is neither a CPU number nor a range such as 2-3"),
        ("1,,2", "'' is neither a CPU number nor a range such as 2-3"),
        (",", "'' is neither a CPU number nor a range such as 2-3"),
        ("1,", "'' is neither a CPU number nor a range such as 2-3"),
        ("2 3", "'2 3' is neither a CPU number nor a range such as 2-3"),
        ("2, 3", "' 3' is neither a CPU number nor a range such as 2-3"),
        ("1-2-3", "'1-2-3' is neither a CPU number nor a range such as 2-3"),
        ("+1", "'+1' is neither a CPU number nor a range such as 2-3"),
        ("1_0", "'1_0' is neither a CPU number nor a range such as 2-3"),
        ("0x2", "'0x2' is neither a CPU number nor a range such as 2-3"),
        ("\N{ARABIC-INDIC DIGIT TWO}", "'\u0662' is neither a CPU number nor a range such as 2-3"),
        ("N", "'N' is neither a CPU number nor a range such as 2-3"),
        ("all", "'all' is neither a CPU number nor a range such as 2-3"),
        ("0-31:2/8", "'0-31:2/8' is neither a CPU number nor a range such as 2-3"),
        ("1,5-3", "'5-3' ends before it starts"),
        ("8192", "'8192' goes beyond CPU 8191, the highest possible CPU"),
        (
            ",".join(["0-8191"] * 100_000),
            "'0-8191' names the same CPUs too many times",
        ),
        ("0-99999999", "'0-99999999' goes beyond CPU 8191, the highest possible CPU"),
    ],
)
def test_invalid_kernel_list_is_rejected(text: str, message: str) -> None:
    with pytest.raises(CpuListError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        ("2-3,6-7", {2, 3, 6, 7}),
        (" 2-3 , 6 ", {2, 3, 6}),
        ("N", {31}),
        ("29-N", {29, 30, 31}),
        ("N-N", {31}),
        ("all", set(range(32))),
        ("ALL", set(range(32))),
        ("all:1/8", {0, 8, 16, 24}),
        ("0-31:2/8", {0, 1, 8, 9, 16, 17, 24, 25}),
        ("3-9:2/4", {3, 4, 7, 8}),
        ("0-4:2/4", {0, 1, 4}),
        ("0-7:8/8", {0, 1, 2, 3, 4, 5, 6, 7}),
        ("1-3:1/1000", {1}),
        ("0-7:3/4,20,30-N", {0, 1, 2, 4, 5, 6, 20, 30, 31}),
    ],
)
def test_configured_list_is_parsed(text: str, cpus: set[int]) -> None:
    assert parse_configured(text, 31) == cpus


NEITHER = "is not a CPU number, a range (2-3), a group (0-31:2/8), N or all"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("isolated", f"'isolated' {NEITHER}"),
        ("1, 2-x, 3", f"'2-x' {NEITHER}"),
        ("1,,2", f"'' {NEITHER}"),
        ("n", f"'n' {NEITHER}"),
        ("N-", f"'N-' {NEITHER}"),
        ("all-3", f"'all-3' {NEITHER}"),
        ("allall", f"'allall' {NEITHER}"),
        ("!3", f"'!3' {NEITHER}"),
        ("0-7:2", f"'0-7:2' {NEITHER}"),
        ("0-7:/4", f"'0-7:/4' {NEITHER}"),
        ("0-7:2/4/8", f"'0-7:2/4/8' {NEITHER}"),
        ("5:1/2", f"'5:1/2' {NEITHER}"),
        ("0-7:0/4", "'0-7:0/4' must use at least one CPU of a group and at most all of it"),
        ("0-7:5/4", "'0-7:5/4' must use at least one CPU of a group and at most all of it"),
        ("0-7:0/0", "'0-7:0/0' must use at least one CPU of a group and at most all of it"),
        ("5-3", "'5-3' ends before it starts"),
        ("N-3", "'N-3' ends before it starts"),
        ("2,32", "'32' goes beyond CPU 31, the highest possible CPU"),
        ("30-40", "'30-40' goes beyond CPU 31, the highest possible CPU"),
        ("9" * 20, f"'{'9' * 20}' goes beyond CPU 31, the highest possible CPU"),
    ],
)
def test_invalid_configured_list_is_rejected(text: str, message: str) -> None:
    with pytest.raises(CpuListError) as caught:
        parse_configured(text, 31)
    assert str(caught.value) == message


# As bitmap_parselist() of Linux 6.18 parses them, with 32 bits.
@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        (",", set()),
        ("2-3,6-7", {2, 3, 6, 7}),
        ("2-3,6-7,", {2, 3, 6, 7}),
        (",2", {2}),
        ("2,,3", {2, 3}),
        ("2, 3 4", {2, 3, 4}),
        ("3,2,3", {2, 3}),
        ("007", {7}),
        ("N", {31}),
        ("30-N", {30, 31}),
        ("All:1/16", {0, 16}),
        ("0-7:2/4", {0, 1, 4, 5}),
        ("0-7:0/4", set()),
        ("0-7:4/4", {0, 1, 2, 3, 4, 5, 6, 7}),
    ],
)
def test_argument_is_parsed_as_by_the_kernel(text: str, cpus: set[int]) -> None:
    assert parse_argument(text, 31) == cpus


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "n",
        "-1",
        "2-",
        "2--3",
        "3-2",
        "32",
        "0-32",
        "0x2",
        "2:1/2",
        "0-7:5/4",
        "0-7:0/0",
        "0-7:1",
    ],
)
def test_argument_that_the_kernel_ignores_is_rejected(text: str) -> None:
    with pytest.raises(CpuListError):
        parse_argument(text, 31)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("0", set()), ("cc\n", {2, 3, 6, 7}), ("00000001,80000000", {31, 32})],
)
def test_mask_is_parsed_as_the_kernel_prints_it(text: str, cpus: set[int]) -> None:
    assert parse_mask(text) == cpus


@pytest.mark.parametrize("text", ["", "0x3", "g", "f" * 2049])
def test_invalid_mask_is_rejected(text: str) -> None:
    with pytest.raises(CpuListError, match="is not a hexadecimal CPU mask"):
        parse_mask(text)


@pytest.mark.parametrize(
    ("cpus", "text"),
    [
        ([], ""),
        ([*range(1, 16), *range(17, 32)], "1-15,17-31"),  # short enough without a group
        (range(0, 64, 2), "0-62:1/2"),
        ([cpu for cpu in range(128) if cpu % 8], "1-127:7/8"),
        # What fits no group stays as it is.
        ([*(cpu for cpu in range(128) if cpu % 8), 130, 132, 140], "1-127:7/8,130,132,140"),
        ([0, 1, *range(4, 120, 4), 200, 201], "0-1,4-116:1/4,200-201"),
    ],
)
def test_long_argument_is_rendered_with_groups(cpus: Iterable[int], text: str) -> None:
    assert render_argument(cpus) == text
    assert parse_argument(text, 255) == set(cpus)


@given(st.sets(st.integers(0, 300)))
def test_argument_names_the_same_cpus_and_is_never_longer(cpus: set[int]) -> None:
    text = render_argument(cpus)
    assert parse_argument(text, 300) == cpus
    assert len(text) <= len(render(cpus))


@pytest.mark.parametrize(
    ("cpus", "mask"),
    [
        ([], "0"),
        ([0], "1"),
        (range(32), "ffffffff"),
        ([32], "1,00000000"),
        ([0, 1, 34, 35], "c,00000003"),
        ([64, 95], "80000001,00000000,00000000"),
    ],
)
def test_mask_has_the_format_that_the_kernel_reads(cpus: list[int], mask: str) -> None:
    assert render_mask(cpus) == mask


@given(cpu_sets)
def test_rendered_mask_parses_to_the_same_cpus(cpus: frozenset[int]) -> None:
    assert parse_mask(render_mask(cpus)) == cpus
