"""The kernel's command line, split as the kernel does it."""

from __future__ import annotations

import pytest

from isolcpus_dp.host.cmdline import split
from tests.unit.check.conftest import MadeUpHost
from tests.unit.check.conftest import made_up as made_up  # the fixture


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", []),
        ("ro quiet\n", [("ro", ""), ("quiet", "")]),
        ("root=UUID=6f3b\tisolcpus=2-3", [("root", "UUID=6f3b"), ("isolcpus", "2-3")]),
        ('isolcpus="2-3" ro', [("isolcpus", "2-3"), ("ro", "")]),
        ('"isolcpus=2-3" ro', [("isolcpus", "2-3"), ("ro", "")]),
        ('dyndbg="file a.c +p" ro', [("dyndbg", "file a.c +p"), ("ro", "")]),
        ('dyndbg="module x isolcpus=2" ro', [("dyndbg", "module x isolcpus=2"), ("ro", "")]),
        ('dyndbg="a -- b" ro', [("dyndbg", "a -- b"), ("ro", "")]),
        ('ro "a b', [("ro", ""), ("a b", "")]),
        ("ro -- isolcpus=2", [("ro", "")]),
        ('ro "--" isolcpus=2', [("ro", "")]),
        ("--=1 ro", [("--", "1"), ("ro", "")]),
        ("a\u00a0b\u2003c=1", [("a\u00a0b\u2003c", "1")]),
    ],
)
def test_command_line_is_split_as_by_the_kernel(
    text: str, arguments: list[tuple[str, str]]
) -> None:
    assert split(text) == arguments


def test_quoted_text_of_another_argument_isolates_nothing(made_up: MadeUpHost) -> None:
    made_up.proc("cmdline", 'isolcpus=2-3 dyndbg="a isolcpus=6-7 -- b" nohz_full=2-3')
    assert made_up.host().arguments == {
        "isolcpus": ("2-3",),
        "dyndbg": ("a isolcpus=6-7 -- b",),
        "nohz_full": ("2-3",),
    }
