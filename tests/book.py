"""Parses the pages of the documentation: commands, their output, and files.

`unit/test_book.py` checks them statically, `vm/test_book.py` runs the commands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Union

ROOT = Path(__file__).parents[1]

# The pages whose commands are run on a guest, in this order. The last two remove the packages.
ON_A_GUEST = (
    "docs/quickstart.md",
    "README.md",
    "docs/plan.md",
    "docs/kubelet.md",
    "docs/runtime.md",
    "docs/check.md",
    "docs/measure.md",
    "docs/fleet.md",
    "docs/operations.md",
    "docs/starlingx.md",
)

# Commands that cannot be run on a guest, and the test that runs each. Its words occur in that file.
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

# Targets of make that are not in .ci/run, and the reason. `unit/test_book.py` checks the recipes.
BY_HAND = {
    "make help": "prints the targets; unit/test_book.py runs it",
    "make test-unit": "a part of make test",
    "make test-placement": "make test runs 2,000 of its cases",
    "make test-vm-full": "takes more than an hour; make test-vm runs a part of it",
    "make bench": "takes minutes, and needs an idle host; make lint checks its types",
    "make figure": "a part of make bench, without its record",
    "make storm": "takes half an hour; integration tests run a few of its restarts",
    "make soak": "takes an hour",
    "make upgrade": "make test-vm runs the test, without its record",
    "make picture": "a test draws the picture to another file and compares it",
    "make clean": "removes the environment of the tests; a test runs it in another directory",
}

# In a sentence, text in backticks is a command if it begins with the name or path of a program and
# a space,
_PROGRAM = re.compile(r"(\S*/s?bin/|\./)?[a-z][a-z0-9_.+-]* ")

# except for these, with the reason.
NOT_COMMANDS = {
    "disable = true": "a line of containerd's configuration",
    "kubeadm init": "needs packages of Kubernetes",
    "kubectl taint nodes --all node-role.kubernetes.io/control-plane-": "needs a cluster",
    "kubectl describe node NODE": "needs a cluster",
    "kubectl get nodes": "needs a cluster",
    "kubectl describe pod forwarder": "needs a cluster",
    "kubectl apply -f forwarder.yaml": "needs a cluster",
    "kubectl exec forwarder -- grep Cpus_allowed_list /proc/self/status": "needs a cluster",
    "pgrep -x sleep": "needs the image of the pod",
    "test -nt": "a part of the command in isolcpus-dp-kubelet.service",
    "ostree admin unlock --hotfix": "needs a system that OSTree has deployed",
    "system host-lock": "needs StarlingX's services",
    "system host-unlock": "needs StarlingX's services",
}

# The parts of outputs that differ between hosts or runs, and what replaces them.
_VARIES = (
    (r"^[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d \S+ ([\w-]+)\[\d+\]:", r"DATE HOST \1[PID]:"),
    (r"\b\d+ ms\b", "N ms"),
    (r"\bcontainerd \d[\w.+~-]*", "containerd VERSION"),
)
_OMITTED = "..."


@dataclass(frozen=True)
class Command:
    """One line for a shell, and the exit status that the page expects."""

    text: str
    status: int = 0


@dataclass(frozen=True)
class Typed:
    """Commands of a block or of a sentence, and their output."""

    page: str
    line: int
    commands: tuple[Command, ...]
    output: str | None = None  # of all commands; None if the page does not show it
    in_prose: bool = False


@dataclass(frozen=True)
class Block:
    """Any other block of code: a file or a part of it."""

    page: str
    line: int
    language: str
    text: str

    def files(self) -> dict[Path, str]:
        """By path: the text below a comment that is only a path, up to an empty line."""
        parts = re.split(r"(?:^|\n\n)# (/\S+)\n", self.text)
        return {Path(path): f"{text.rstrip()}\n" for path, text in zip(parts[1::2], parts[2::2])}


Step = Union[Typed, Block]


def pages() -> list[str]:
    """All pages, those of `ON_A_GUEST` first."""
    found = ["README.md", "CONTRIBUTING.md"]
    found += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
    return [*ON_A_GUEST, *(page for page in found if page not in ON_A_GUEST)]


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return "".join(text for _, language, text in _parts(page) if language is None)


def steps(page: str) -> list[Step]:
    """The commands and blocks of a page, in order."""
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


def commands_of(page: str) -> list[Command]:
    """All commands of a page."""
    return [one for step in steps(page) if isinstance(step, Typed) for one in step.commands]


def is_elsewhere(command: Command) -> bool:
    """Whether it is not run on a guest; targets of make are not, because they need the source."""
    return command.text in ELSEWHERE or command.text.startswith("make ")


def shows(page_says: str, printed: str) -> bool:
    """Whether a page shows what was printed. A line `...` stands for any number of lines."""
    lines = _normalized(page_says).splitlines()
    pattern = "".join(
        r"(?:.*\n)*" if line == _OMITTED else re.escape(line) + r"\n" for line in lines
    )
    return re.fullmatch(pattern, _normalized(printed) + "\n") is not None


def _normalized(text: str) -> str:
    for pattern, replacement in _VARIES:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def _parts(page: str) -> Iterator[tuple[int, str | None, str]]:
    """Line number, language and text of each block; None is the language of prose."""
    start, language, lines = 1, None, list[str]()
    indent = ""  # of a block in a list item
    for number, line in enumerate(text_of(page).splitlines(keepends=True), start=1):
        if line.lstrip().startswith("```"):
            yield start, language, "".join(lines)
            language = line.strip()[3:] if language is None else None
            indent = line[: line.index("`")]
            start, lines = number + 1, []
        else:
            lines.append(line if language is None else line.removeprefix(indent))
    assert language is None, f"{page}: the block in line {start} does not end"
    yield start, language, "".join(lines)


def commands_in_prose(text: str) -> Iterator[Command]:
    """The commands in backticks, each with the exit status after it."""
    for code, status in re.findall(r"`([^`]+)`(?:\s+\(exit\s+status\s+(\d+))?", text):
        line = " ".join(code.replace("\\|", "|").split())
        if _PROGRAM.match(line) and line not in NOT_COMMANDS:
            yield Command(line, int(status or 0))


def commands_in_block(text: str) -> Iterator[Command]:
    """The commands of a block tagged sh, each with the exit status in its comment."""
    for line in text.replace("\\\n", " ").splitlines():
        command, _, comment = f"{line} ".partition(" # ")
        status = re.search(r"exit status (\d+)", comment)
        if command.strip():
            yield Command(command.strip(), int(status[1]) if status else 0)
