"""A fixture that creates a simulated machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from isolcpus_dp.simulator.machine import MadeUpMachine, parse_shape

# Packages x cores x threads, and the isolated CPUs.
MakeUp = Callable[[str, set[int]], MadeUpMachine]

# hypothesis stores its files in build/, and a slow host is not a failure.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", str(Path(__file__).parents[2] / "build" / "hypothesis")
)
# Files that a group can write are not trusted.
os.umask(0o022)
hypothesis.settings.register_profile("unit", deadline=None)
hypothesis.settings.load_profile("unit")


def without_smt(made_up: MadeUpMachine) -> MadeUpMachine:
    """The machine after a boot with nosmt: the kernel keeps all second threads offline."""
    (made_up.directory / "smt").mkdir()
    (made_up.directory / "smt/control").write_text("off\n")
    cpus = sorted(int(path.name[3:]) for path in made_up.directory.glob("cpu[0-9]*"))
    made_up.set_offline(*cpus[len(cpus) // 2 :])
    return made_up


@pytest.fixture
def make_up(tmp_path: Path) -> MakeUp:
    """Creates a machine of a shape such as 2x2x2, on which CPU 4 is the sibling of 0.

    It is an ordinary machine; a test for an unusual one removes parts of it.
    """

    def made_up(shape: str, isolated: set[int]) -> MadeUpMachine:
        return MadeUpMachine(tmp_path / "sys", parse_shape(shape), isolated)

    return made_up
