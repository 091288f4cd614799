"""Wishes that a machine cannot fulfil, lists of CPUs, and types of cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.host import cpulist, machine
from isolcpus_dp.plan import wish
from isolcpus_dp.plan.wish import Wish, WishError
from tests.unit import machines

from .cases import case_of


def isolated(case_name: str, wanted: Wish) -> str:
    case = case_of(case_name)
    goal, _ = wish.apply(case.machine, wanted)
    return cpulist.render(goal.isolated)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("2-3,34-35", "2-3,34-35"), ("31, 63", "31,63"), ("2-35:2/32", "2-3,34-35")],
)
def test_list_isolates_exactly_its_cpus(text: str, cpus: str) -> None:
    assert isolated("2x16x2", Wish(isolate=text)) == cpus


@pytest.mark.parametrize(
    ("name", "wanted", "sentence"),
    [
        (
            "2x16x2",
            Wish(isolate="2-3,34"),
            "--isolate 2-3,34 cuts core 3,35, and a CPU cannot be quiet while its sibling works:"
            " use --isolate 2-3,34-35",
        ),
        (
            "2x16x2",
            Wish(isolate="0-3,32-35"),
            "--isolate 0-3,32-35: CPU 0,32 is the core on which the kernel starts, which cannot be"
            " isolated",
        ),
        (
            "2x16x2",
            Wish(isolate="64"),
            "--isolate 64: '64' goes beyond CPU 63, the highest possible CPU",
        ),
        (
            "2x16x2",
            Wish(isolate="1;2"),
            "--isolate 1;2: '1;2' is not a CPU number, a range (2-3), a group (0-31:2/8), N or all",
        ),
        ("2x16x2", Wish(isolate=""), "--isolate names no CPU: use a list such as 2-3,6-7"),
        (
            "2x16x2",
            Wish(isolate="1,33", housekeeping=1),
            "--isolate names the isolated CPUs: leave out --housekeeping",
        ),
        (
            "2x16x2",
            Wish(isolate="1,33", core_type="performance"),
            "--isolate names the isolated CPUs: leave out --isolate-type",
        ),
        (
            "1x4x1",
            Wish(housekeeping=4),
            "--housekeeping 4 leaves no core to isolate: the machine has 4 cores; use a smaller"
            " number, or --isolate LIST",
        ),
        (
            "1x4x1",
            Wish(core_type="efficient"),
            "--isolate-type efficient: this machine has only one type of cores; leave it out",
        ),
    ],
)
def test_impossible_wish_is_refused_in_one_sentence(name: str, wanted: Wish, sentence: str) -> None:
    with pytest.raises(WishError) as caught:
        isolated(name, wanted)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "wanted", "cpus"),
    [
        ("hybrid 8P+16E", Wish(), "2-31"),
        ("hybrid 8P+16E", Wish(core_type="performance", housekeeping=3), "2-15"),
        ("hybrid 8P+16E", Wish(core_type="performance", housekeeping=18), "4-15"),
        ("hybrid 8P+16E", Wish(core_type="efficient"), "16-31"),
        ("hybrid 8P+16E", Wish(core_type="efficient", housekeeping=9), "17-31"),
        ("big.LITTLE", Wish(core_type="performance"), "4-7"),
        ("big.LITTLE", Wish(core_type="efficient"), "1-3"),
        ("big.LITTLE", Wish(housekeeping=4), "4-7"),
    ],
)
def test_cores_of_the_other_type_stay(name: str, wanted: Wish, cpus: str) -> None:
    assert isolated(name, wanted) == cpus


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        (
            "SMT off at boot",
            (
                "SMT is off: CPU 16-31 is offline and not isolated; before SMT is switched on, make"
                " the plan again on the host with SMT on",
            ),
        ),
        (
            "offline CPUs",
            (
                "CPU 10,26 is offline, its core is not known, and it is not isolated: if it is to"
                " be isolated, bring it online and make the plan again",
            ),
        ),
        ("1x4x1", ()),
    ],
)
def test_cpus_whose_core_is_unknown_are_named(name: str, notes: tuple[str, ...]) -> None:
    case = case_of(name)
    assert wish.apply(case.machine, case.wish)[1] == notes


def test_offline_cpu_that_no_core_lacks_is_named(tmp_path: Path) -> None:
    root = machines.build("1x4x1", tmp_path / "sys").directory
    (root / "online").write_text("0-2\n")
    for name in ("topology", "cache"):
        (root / "cpu3" / name).rename(tmp_path / name)
    goal, notes = wish.apply(machine.read(tmp_path / "sys"), Wish())
    assert goal.isolated == {1, 2}
    assert goal.housekeeping == {0, 3}
    assert notes == (
        "CPU 3 is offline, its core is not known, and it is not isolated: if it is to be isolated,"
        " bring it online and make the plan again",
    )
