"""The kernel's command line: what `plan` writes to it and `check` finds in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from isolcpus_dp.config import Config
from isolcpus_dp.host.cmdline import split
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.plan import kernel as plan
from isolcpus_dp.plan.part import Goal, Target
from isolcpus_dp.report.check import kernel as checks
from isolcpus_dp.report.check.finding import Verdict
from isolcpus_dp.report.check.host import Host, Roots
from isolcpus_dp.report.snapshot import Snapshot
from isolcpus_dp.simulator.machine import described, parse_shape
from tests.fuzz import sentences

_ISOLATED = frozenset({2, 3, 6, 7})
_MACHINE = described(parse_shape("1x4x2"), _ISOLATED)
_GOAL = Goal(_MACHINE, _ISOLATED, _MACHINE.present - _ISOLATED)


def check(data: bytes) -> bool:
    """Any command line has a finding; with the arguments of the plan, it lacks nothing."""
    text = data.decode("utf-8", "replace").strip().partition("\n")[0]
    for distribution in ("debian", "el", "other"):
        for note in plan.part(_GOAL, Target(distribution, (6, 1), tuned=False), text).notes:
            sentences.require(note)
    words = plan.arguments(_GOAL, text)
    for sentence in plan.lacking(words, text):
        sentences.require(sentence)
    names = {word.partition("=")[0] for word in words}
    others = [one for one in split(text) if one[0] not in names]
    after = split(" ".join((*words, text)))
    assert [one for one in after if one[0] not in names] == others
    assert plan.lacking(words, " ".join(words)) == []
    _check_quoted(text)
    with tempfile.TemporaryDirectory() as name:
        return _is_set(_host(Path(name), text))


def _check_quoted(text: str) -> None:
    """Each argument in quotes is the same argument."""
    found = split(text)
    assert all('"' not in name + value for name, value in found)
    # `--=` is an argument, but `--` in quotes ends them, as without.
    quoted = [
        f'"{name}={value}"' if value or name == "--" else f'"{name}"' for name, value in found
    ]
    assert split(" ".join(quoted)) == found


def _host(proc: Path, text: str) -> Host:
    (proc / "cmdline").write_text(f"{text}\n", encoding="utf-8")
    seen = Snapshot(_MACHINE, Config(), pools=(), owners=(), unseen=())
    return Host(Roots(sysfs=proc / "sys", proc=proc), seen)


def _is_set(host: Host) -> bool:
    """Whether isolcpus= is as it should be. Each check has evidence in one line."""
    found = checks.arguments(host)
    for finding in (found, checks.nohz_full(host)):
        sentences.require(finding.evidence)
        assert finding.verdict is Verdict.OK or finding.advice
    try:
        sentences.require(checks.rcu_nocbs(host).evidence)
    except Unseen as unseen:  # there are no processes
        sentences.require(unseen)
    return found.verdict is Verdict.OK
