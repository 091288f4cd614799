"""The pages, taken apart: what they tell to type and to write, and what comes of it.

For the tests that hold them to the truth: `unit/test_book.py` looks, `vm/test_book.py` does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

ROOT = Path(__file__).parents[1]

# In the order in which their commands are run. The last two remove the packages.
ON_A_GUEST = (
    "README.md",
    "docs/kubelet.md",
    "docs/runtime.md",
    "docs/check.md",
    "docs/operations.md",
    "docs/starlingx.md",
)

# Which test runs what no guest can: its words occur in that file.
ELSEWHERE = {
    "make run": "tests/integration/test_cli.py",
    "dnf install isolcpus-dp isolcpus-dp-pin": "tests/packages/test_rpm.py",
    "dnf upgrade isolcpus-dp isolcpus-dp-pin": "tests/packages/test_rpm.py",
    "dnf remove isolcpus-dp-pin isolcpus-dp": "tests/packages/test_rpm.py",
    "rpmbuild --rebuild isolcpus-dp-*.src.rpm": "tests/packages/test_rpm.py",
    "build/venv/bin/python -m pytest -q -o faulthandler_timeout=0 tests/vm/test_guest.py": (
        "tests/unit/test_book.py"
    ),
}

# Targets of make that .ci/run does not make, and why. `unit/test_book.py` looks at their recipes.
BY_HAND = {
    "make help": "prints this table; unit/test_book.py runs it",
    "make test-unit": "a part of make test",
    "make test-placement": "make test runs 2,000 of its cases",
    "make bench": "takes minutes, and a host that does nothing else; make lint checks its types",
    "make fuzz": "a search by chance; make lint checks its types",
    "make picture": "a test draws the picture to another file and compares it",
    "make clean": "takes away what the tests run from; one does it in a directory of its own",
}

# What begins with the name of a program, or with its path, and goes on is a command also in the
# middle of a sentence ...
_PROGRAM = re.compile(r"(\S*/s?bin/|\./)?[a-z][a-z0-9_.+-]* ")

# ... but for these, and why.
NOT_COMMANDS = {
    "disable = true": "a line of containerd's configuration",
    "test -nt": "a part of a command, which isolcpus-dp-kubelet.service has whole",
    "ostree admin unlock --hotfix": "takes a system that OSTree has deployed",
    "system host-lock": "takes StarlingX's services",
    "system host-unlock": "takes StarlingX's services",
}

# In the output of a command, what differs from one host or run to another.
_VARIES = (
    (r"^[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+ ([\w-]+)\[\d+\]:", r"DATE HOST \1[PID]:"),
    (r"\b\d+ ms\b", "N ms"),
    (r"\bcontainerd \d[\w.+~-]*", "containerd VERSION"),
)
_LEFT_OUT = "..."


@dataclass(frozen=True)
class Command:
    """One line for a shell, and the exit status it is said to have."""

    text: str
    status: int = 0


@dataclass(frozen=True)
class Typed:
    """What an operator or a developer types, in a block or in a sentence, and what it prints."""

    page: str
    line: int
    commands: tuple[Command, ...]
    output: str | None = None  # of all of them; None if the page does not show it
    in_prose: bool = False


@dataclass(frozen=True)
class Block:
    """Any other block of code: a file, or part of one."""

    page: str
    line: int
    language: str
    text: str

    def files(self) -> dict[Path, str]:
        """What stands below a comment that is nothing but a path; an empty line ends it."""
        parts = re.split(r"(?:^|\n\n)# (/\S+)\n", self.text)
        return {Path(path): f"{text.rstrip()}\n" for path, text in zip(parts[1::2], parts[2::2])}


Step = Union[Typed, Block]


def pages() -> list[str]:
    """All of them, those of `ON_A_GUEST` first."""
    found = ["README.md", "CONTRIBUTING.md"]
    found += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
    return [*ON_A_GUEST, *(page for page in found if page not in ON_A_GUEST)]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return "".join(text for _, language, text in _parts(page) if language is None)


def steps(page: str) -> list[Step]:
    """All that a page tells to do, in its order."""
    found: list[Step] = []
    parts = [part for part in _parts(page) if part[1] is not None or part[2].strip()]
    for number, (line, language, text) in enumerate(parts):
        if language is None:
            found += [Typed(page, line, (one,), in_prose=True) for one in commands_in_prose(text)]
        elif language == "sh":
            after = parts[number + 1] if number + 1 < len(parts) else (0, None, "")
            output = after[2] if after[1] == "text" else None
            found.append(Typed(page, line, tuple(commands_in_block(text)), output))
        else:
            found.append(Block(page, line, language, text))
    return found


def typed(page: str) -> list[Command]:
    """All commands of a page."""
    return [one for step in steps(page) if isinstance(step, Typed) for one in step.commands]


def is_elsewhere(command: Command) -> bool:
    """Whether it is not for a guest: make's targets are for those who have the source."""
    return command.text in ELSEWHERE or command.text.startswith("make ")


def shows(page_says: str, printed: str) -> bool:
    """Whether a page tells what was printed. A line of `...` stands for any lines, or none."""
    lines = _same_everywhere(page_says).splitlines()
    pattern = "".join(
        r"(?:.*\n)*" if line == _LEFT_OUT else re.escape(line) + r"\n" for line in lines
    )
    return re.fullmatch(pattern, _same_everywhere(printed) + "\n") is not None


def _same_everywhere(text: str) -> str:
    for pattern, same in _VARIES:
        text = re.sub(pattern, same, text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def _parts(page: str) -> Iterator[tuple[int, str | None, str]]:
    """Line number, language and text of each block; None is the language of prose."""
    start, language, lines = 1, None, list[str]()
    indent = ""  # of a block that belongs to an item of a list
    for number, line in enumerate(text_of(page).splitlines(keepends=True), start=1):
        if line.lstrip().startswith("```"):
            yield start, language, "".join(lines)
            language = line.strip()[3:] if language is None else None
            indent = line[: line.index("`")]
            start, lines = number + 1, []
        else:
            lines.append(line if language is None else line.removeprefix(indent))
    assert language is None, f"{page}: the block in line {start} has no end"
    yield start, language, "".join(lines)


def commands_in_prose(text: str) -> Iterator[Command]:
    """The commands in backticks, each with the exit status that the text names."""
    for code, status in re.findall(r"`([^`]+)`(?:\s+\(exit\s+status\s+(\d+))?", text):
        line = " ".join(code.replace("\\|", "|").split())
        if _PROGRAM.match(line) and line not in NOT_COMMANDS:
            yield Command(line, int(status or 0))


def commands_in_block(text: str) -> Iterator[Command]:
    """The commands of a block tagged sh, each with the exit status that its comment names."""
    for line in text.replace("\\\n", " ").splitlines():
        command, _, comment = f"{line} ".partition(" # ")
        status = re.search(r"exit status (\d+)", comment)
        if command.strip():
            yield Command(command.strip(), int(status[1]) if status else 0)
