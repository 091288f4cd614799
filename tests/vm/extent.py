"""How much the tests try: as much as fits into `.ci/run`, or all of it (`make test-vm-full`)."""

from __future__ import annotations

import os

import pytest

FULL = os.environ.get("VM_TESTS") == "full"

# For tests, and for parameters of tests, that only a full run has.
in_full_run = pytest.mark.full


def times(few: int, *, full: int) -> int:
    """Returns how often a test repeats something."""
    return full if FULL else few
