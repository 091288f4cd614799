"""How disturbances are drawn, and the script that a guest runs."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from isolcpus_dp import config
from tests.vm.guest import STARTS_A_CPU
from tests.vm.soak.disturbance import (
    AT_ANY_TIME,
    CONFIGURATIONS,
    DEFAULT,
    EARLY,
    NOT_RELOADED,
    OFFLINE,
    ONLINE,
    RELOADED,
    SWITCHED,
    WRONG,
    Disturbances,
    Step,
    script,
)


def drawn(seed: int, count: int, *, early: bool) -> list[list[str]]:
    """The names of the steps that are drawn."""
    disturbances = Disturbances(random.Random(seed))
    return [[step.name for step in disturbances.draw(early=early)] for _ in range(count)]


def test_same_seed_draws_the_same_disturbances() -> None:
    assert drawn(7, 30, early=True) == drawn(7, 30, early=True)
    assert drawn(7, 30, early=True) != drawn(8, 30, early=True)


def test_everything_is_drawn_and_daemons_only_in_the_first_half() -> None:
    others = {*AT_ANY_TIME, OFFLINE, ONLINE, RELOADED, NOT_RELOADED}
    late = {name for names in drawn(7, 300, early=False) for name in names}
    early = {name for names in drawn(7, 300, early=True) for name in names}
    assert late == others
    assert early == others | {*EARLY}


def test_wrong_configuration_comes_alone() -> None:
    assert all(
        names == [NOT_RELOADED] for names in drawn(7, 300, early=True) if NOT_RELOADED in names
    )


def test_one_cpu_is_offline_at_a_time_and_comes_back() -> None:
    disturbances = Disturbances(random.Random(7))
    offline: list[int] = []
    for _ in range(300):
        for step in disturbances.draw(early=True):
            if step.name == OFFLINE:
                assert not offline
                offline = [cpu for cpu in SWITCHED if f"cpu{cpu}/online" in step.command]
                assert len(offline) == 1
            elif step.name == ONLINE:
                assert f"cpu{offline.pop()}/online" in step.command
                # A hang is then the emulation's fault.
                assert STARTS_A_CPU.search(step.command)
        assert disturbances.offline == (offline[0] if offline else None)
        assert disturbances.allocatable == (3 if {*offline} & {2, 3, 6, 7} else 4)


def test_restoring_undoes_what_was_disturbed() -> None:
    disturbances = Disturbances(random.Random(7))
    restored = set()
    for _ in range(300):
        disturbances.draw(early=True)
        was_as_at_first = disturbances.is_as_at_first
        names = [step.name for step in disturbances.restore()]
        assert was_as_at_first == (names == [])
        assert disturbances.is_as_at_first
        restored.update(names)
    assert restored == {ONLINE, RELOADED}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations_are_right(name: str, tmp_path: Path) -> None:
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text(CONFIGURATIONS[name][0])
    loaded = config.load(file, 7)
    rules = CONFIGURATIONS[name][1]
    assert loaded.pinning.keep_others_off == rules.keep_others_off
    assert loaded.pools[0].mixed == rules.mixed
    assert (name == DEFAULT) == (CONFIGURATIONS[name][0] == "")


@pytest.mark.parametrize("text", WRONG)
def test_wrong_configurations_are_wrong(text: str, tmp_path: Path) -> None:
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text(text)
    with pytest.raises(config.ConfigError):
        config.load(file, 7)


def run(steps: list[Step], recovered: str) -> list[str]:
    text = script(random.Random(7), steps, recovered, 1)
    return subprocess.run(
        ["bash", "-c", text], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


def test_script_tells_which_steps_failed_and_how_long_the_recovery_took() -> None:
    *failed, last = run([Step("bad step", "false"), Step("good", "echo chatter")], "true")
    assert failed == ["failed bad step"]
    word, seconds = last.split()
    assert word == "recovered"
    assert 0 <= float(seconds) < 1


def test_script_ends_if_nothing_recovers() -> None:
    assert run([Step("good", "true")], "false") == ["late"]


def test_each_configuration_is_applied_once_and_the_default_is_left() -> None:
    disturbances = Disturbances(random.Random(7))
    steps = disturbances.each_configuration()
    assert len({step.command for step in steps}) == len(CONFIGURATIONS)
    assert {step.name for step in steps} == {RELOADED}
    assert disturbances.configuration == DEFAULT
