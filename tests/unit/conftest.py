"""A machine from a few words, for every test that needs one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from isolcpus_dp.simulator.machine import MadeUpMachine, parse_shape

# Packages x cores x threads, and the isolated CPUs.
MakeUp = Callable[[str, set[int]], MadeUpMachine]

# What hypothesis keeps goes where all that is made goes, and a slow host is no failure.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[2] / "build" / "hypothesis")
)
hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")


@pytest.fixture
def make_up(tmp_path: Path) -> MakeUp:
    """Makes up the machine of a shape such as 2x2x2, on which CPU 4 is the sibling of 0.

    Its tree is an ordinary one; a test for an odd host takes parts of it away.
    """

    def made_up(shape: str, isolated: set[int]) -> MadeUpMachine:
        return MadeUpMachine(tmp_path / "sys", parse_shape(shape), isolated)

    return made_up
