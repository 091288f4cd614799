"""Which CPUs are measured.

The machine has 4 cores with 2 threads; CPU 4 is the sibling of 0. CPUs 1-3 and 5-7 are isolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from isolcpus_dp.host.machine import Machine
from isolcpus_dp.measure import selection
from isolcpus_dp.measure.request import Refused, RequestError
from isolcpus_dp.measure.result import Dropped
from isolcpus_dp.measure.selection import select
from isolcpus_dp.simulator.machine import described, regular

MACHINE = described(regular(1, 4, 2), {1, 2, 3, 5, 6, 7})
FORWARDER = "default/forwarder/main"
BESIDE = f"is owned by {FORWARDER}, whom a busy loop would slow down"


def without(*offline: int, machine: Machine = MACHINE) -> Machine:
    return replace(machine, online=machine.online - set(offline))


def refusal(
    kind: type[Exception],
    owners: Mapping[int, str],
    listed: str | None = None,
    machine: Machine = MACHINE,
) -> str:
    with pytest.raises(kind) as caught:
        select(machine, owners, listed)
    return str(caught.value)


def test_all_isolated_cpus_without_an_owner_are_measured() -> None:
    chosen = select(MACHINE, {2: FORWARDER, 6: FORWARDER})
    assert chosen.measured == {1, 3, 5, 7}
    assert chosen.watched == set()
    assert chosen.own == {0, 4}
    assert chosen.isolated == {1, 2, 3, 5, 6, 7}
    assert chosen.left_out == ()
    assert chosen.owners == {2: FORWARDER, 6: FORWARDER}


def test_offline_cpus_are_not_measured() -> None:
    chosen = select(without(3, 7), {})
    assert chosen.measured == {1, 2, 5, 6}
    assert chosen.isolated == {1, 2, 5, 6}


def test_free_sibling_of_an_owned_cpu_is_left_out() -> None:
    chosen = select(MACHINE, {2: FORWARDER})
    assert chosen.measured == {1, 3, 5, 7}
    assert chosen.left_out == (Dropped(6, f"its SMT sibling, CPU 2, {BESIDE}"),)


def test_owned_cpus_are_watched_if_asked_for() -> None:
    chosen = select(MACHINE, {2: FORWARDER}, watch_owned=True)
    assert chosen.measured == {1, 3, 5, 7}
    assert chosen.watched == {2}
    chosen = select(MACHINE, {2: FORWARDER}, "2", watch_owned=True)
    assert chosen.measured == set()
    assert chosen.watched == {2}


def test_list_selects_cpus_also_housekeeping_ones() -> None:
    chosen = select(MACHINE, {2: FORWARDER}, "0,3")
    assert chosen.measured == {0, 3}
    assert chosen.own == {4}
    assert chosen.owners == {}


def test_list_with_an_owned_cpu_is_refused() -> None:
    assert refusal(Refused, {3: FORWARDER}, "1-3") == (
        f"CPU 3 is owned by {FORWARDER}: leave it out, or watch it with --watch-owned"
    )


def test_list_with_the_sibling_of_an_owned_cpu_is_refused() -> None:
    sentence = f"CPU 7: its SMT sibling, CPU 3, {BESIDE}: leave it out"
    assert refusal(Refused, {3: FORWARDER}, "7") == sentence
    with pytest.raises(Refused, match=r"^CPU 7: its SMT sibling"):
        select(MACHINE, {3: FORWARDER}, "3,7", watch_owned=True)


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ("x", "--cpus: 'x' is not a CPU number, a range (2-3), a group (0-31:2/8), N or all"),
        ("8", "--cpus: '8' goes beyond CPU 7, the highest possible CPU"),
        ("", "--cpus names no CPU: give a list such as 2-3,6"),
        ("5-6", "--cpus: CPU 6 is not online; the online CPUs are 0-5,7"),
    ],
)
def test_wrong_list_is_refused(listed: str, sentence: str) -> None:
    assert refusal(RequestError, {}, listed, without(6)) == sentence


def test_one_housekeeping_cpu_stays_for_the_command() -> None:
    assert refusal(RequestError, {}, "all") == (
        "no housekeeping CPU is left for the command itself if CPU 0-7 is measured: leave one out"
    )


def test_host_without_isolated_cpus_is_told_how_to_get_them() -> None:
    assert refusal(Refused, {}, machine=replace(MACHINE, isolated=frozenset())) == (
        "no CPU is isolated: boot with isolcpus=, see isolcpus-dp plan, or name CPUs in --cpus"
    )


def test_host_whose_isolated_cpus_are_offline_is_told_so() -> None:
    assert refusal(Refused, {}, machine=without(1, 2, 3, 5, 6, 7)) == (
        "no isolated CPU is online: 1-3,5-7 are isolated, 0,4 are online"
    )


def test_host_without_a_free_cpu_is_told_who_has_them() -> None:
    assert refusal(Refused, {1: FORWARDER, 2: FORWARDER, 3: FORWARDER}) == (
        "no isolated CPU is free: containers own CPU 1-3 and CPU 5-7 shares a core with an owned"
        " CPU; wait until a pod has ended, or watch owned CPUs with --watch-owned"
    )


@pytest.mark.parametrize(
    ("listed", "main_cpu"), [("1-3", 0), ("0", 5), ("0-3", 4)], ids=["free", "beside", "shared"]
)
def test_command_runs_on_a_core_without_a_loop_if_there_is_one(listed: str, main_cpu: int) -> None:
    machine = replace(MACHINE, isolated=frozenset({1, 2, 3}))
    assert selection.main_cpu(machine, select(machine, {}, listed)) == main_cpu
