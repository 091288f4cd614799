"""The table of all targets, and the files of their seed corpora."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import targets

# Whether the bytes were accepted. Any exception is a fault.
Check = Callable[[bytes], bool]

_LONGEST_WORD = 40

DIRECTORY = Path(__file__).parent / "corpus"
NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(targets.__path__)))


def load(name: str) -> Check:
    """The function of a target; this imports the part of the product that it tests."""
    check: Check = importlib.import_module(f"tests.fuzz.targets.{name}").check
    return check


def words(name: str) -> list[str]:
    """The words of the corpus, with which a search varies its input: names, keys and values."""
    texts = [file.read_bytes() for file in corpus(name)]
    found = {word for text in texts for word in re.findall(rb"[A-Za-z][\w./:=-]*", text)}
    return sorted(word.decode() for word in found if len(word) <= _LONGEST_WORD)


def corpus(name: str) -> list[Path]:
    """The files with which the search begins. Those named `refused-*` are not accepted."""
    return sorted((DIRECTORY / name).iterdir())
