"""Searches one target with atheris for bytes that are a fault.

Its arguments are the name of the target and libFuzzer's options. It is a process of its own,
because libFuzzer ends the process, and the product must be instrumented when it is imported.
"""

from __future__ import annotations

import sys

import atheris

from tests.fuzz import table

if __name__ == "__main__":
    program, name, *options = sys.argv
    with atheris.instrument_imports(include=["isolcpus_dp"]):
        check = table.load(name)
    atheris.Setup([program, *options], check)
    atheris.Fuzz()
