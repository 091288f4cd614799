"""All checks together: which ones run, the worst verdict, and the output."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest

from isolcpus_dp import cli
from isolcpus_dp.report.check import files, finding, show, table
from isolcpus_dp.report.check.finding import Verdict
from isolcpus_dp.report.check.host import Host
from isolcpus_dp.report.check.table import Check, Result
from tests.unit.conftest import MakeUp

from .conftest import MadeUpHost

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs/check.schema.json").read_text())

RESULTS = [
    Result(Check("nri", "the interface", lambda _: finding.ok("")), finding.ok("it listens")),
    Result(
        Check("irq-affinity", "interrupts", lambda _: finding.ok("")),
        finding.warning(
            "interrupts that may fire on isolated CPUs: 24 (eth0-rx-0) on CPU 3",
            "Move each: echo 0-1,4-5 > /proc/irq/NUMBER/smp_affinity_list",
        ),
    ),
]


def test_checks_of_an_empty_host_end_without_a_traceback(made_up: MadeUpHost) -> None:
    results = table.run(made_up.host(), [])
    assert len(results) == len(table.CHECKS) - 1  # all but irq-counts
    assert table.worst(results) is Verdict.WARNING


def test_invalid_process_status_is_unknown(made_up: MadeUpHost) -> None:
    made_up.proc("9/status", "Name:\tx\nPPid:\t1\nCpus_allowed_list:\t7-x")
    [result] = table.run(made_up.host(), ["foreign-processes"])
    assert result.finding.verdict is Verdict.UNKNOWN
    assert "'7-x'" in result.finding.evidence


def test_unreadable_file_is_unknown(made_up: MadeUpHost) -> None:
    def forbidden(_: Host) -> finding.Finding:
        raise files.Unseen("cannot read /proc/50/environ: Permission denied")

    found = table.look(Check("irqbalance", "", forbidden), made_up.host())
    assert (found.verdict, found.evidence) == (
        Verdict.UNKNOWN,
        "cannot read /proc/50/environ: Permission denied",
    )


def test_control_characters_do_not_reach_the_terminal(made_up: MadeUpHost) -> None:
    made_up.process(100, "bad\x1b[2J", "0-7")
    made_up.process(50, "irqbalance", "0-1,4-5")
    made_up.proc("50/environ", "IRQBALANCE_BANNED_CPULIST=\x1b]0;owned\a")
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "kubelet\0--topology-manager-policy=\x1b[31mX")
    results = table.run(
        made_up.host(), ["foreign-processes", "irqbalance", "topology-manager", "reserved-cpus"]
    )
    texts = " ".join(f"{result.finding.evidence} {result.finding.advice}" for result in results)
    assert "bad?[2J (process 100)" in texts
    assert "'?]0;owned?'" in texts
    assert 'policy "?[31mX"' in texts
    assert texts.isprintable()


def test_only_the_requested_checks_are_run(made_up: MadeUpHost) -> None:
    results = table.run(made_up.host(), ["nri", "smt-siblings"])
    assert [result.check.id for result in results] == ["smt-siblings", "nri"]


@pytest.mark.parametrize(
    ("only", "sentence"),
    [
        ("nonsense", "--only nonsense: no such check; use one of kernel-arguments, "),
        ("irq-counts", "needs an --interval above 0"),
    ],
)
def test_check_that_cannot_run_is_wrong_usage(
    made_up: MadeUpHost, only: str, sentence: str
) -> None:
    with pytest.raises(table.UsageError, match=sentence):
        table.run(made_up.host(interval=0), [only])


def test_ids_are_unique() -> None:
    ids = [check.id for check in table.CHECKS]
    assert len(set(ids)) == len(ids) == 26


def test_every_check_is_documented_and_completed() -> None:
    ids = [check.id for check in table.CHECKS]
    page = (ROOT / "docs/check.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| .*\*\*", page, re.MULTILINE) == ids
    manual = (ROOT / "docs/isolcpus-dp.8").read_text().replace("\\-", "-")
    manual = manual.partition("\n.SH CHECKS\n")[2].partition("\n.SH ")[0]
    assert re.findall(r"^\.TP\n\.B (.+)$", manual, re.MULTILINE) == ids
    completion = (ROOT / "packaging/isolcpus-dp.bash").read_text()
    offered = completion.partition("--only)")[2].partition('compgen -W "')[2].partition('"')[0]
    assert offered.split() == ids


def test_text_is_readable_at_80_columns() -> None:
    assert show.as_text(RESULTS, 80, show.plain) == (
        "nri                ok       it listens\n"
        "irq-affinity       warning  interrupts that may fire on isolated CPUs: 24\n"
        "                            (eth0-rx-0) on CPU 3\n"
        "                            -> Move each: echo 0-1,4-5 >\n"
        "                               /proc/irq/NUMBER/smp_affinity_list\n"
        "1 ok, 1 warning"
    )


def test_terminal_shows_verdicts_in_colour() -> None:
    text = show.as_text(RESULTS, 80, show.coloured)
    assert "\033[32mok     \033[0m  it listens" in text
    assert "\033[33mwarning\033[0m  interrupts" in text


def test_json_contains_the_same_findings() -> None:
    jsonschema.validate(json.loads(show.as_json(RESULTS)), SCHEMA)
    assert json.loads(show.as_json(RESULTS)) == {
        "worst": "warning",
        "checks": [
            {
                "id": "nri",
                "looks_at": "the interface",
                "verdict": "ok",
                "evidence": "it listens",
                "advice": "",
            },
            {
                "id": "irq-affinity",
                "looks_at": "interrupts",
                "verdict": "warning",
                "evidence": "interrupts that may fire on isolated CPUs: 24 (eth0-rx-0) on CPU 3",
                "advice": "Move each: echo 0-1,4-5 > /proc/irq/NUMBER/smp_affinity_list",
            },
        ],
    }


@pytest.mark.parametrize(
    ("isolated", "status", "evidence"),
    [
        ({2, 3, 6, 7}, 0, "all threads of the isolated cores are isolated"),
        ({2, 3, 7}, 1, "core 2,6 is only partly isolated"),
    ],
)
def test_exit_status_follows_the_worst_verdict(
    make_up: MakeUp,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    isolated: set[int],
    status: int,
    evidence: str,
) -> None:
    tree = make_up("1x4x2", isolated)
    arguments = ["check", "--sysfs", str(tree.root), "--kubelet-dir", str(tmp_path)]
    assert cli.main([*arguments, "--only", "smt-siblings"]) == status
    printed = capsys.readouterr().out
    assert evidence in printed
    assert "\033" not in printed
    cli.main([*arguments, "--only", "smt-siblings", "--json"])
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    [check] = document["checks"]
    assert check["id"] == "smt-siblings"
    assert check["evidence"] == evidence


@pytest.mark.parametrize("arguments", [["--only", "nonsense"], ["--interval", "-1"]])
def test_wrong_usage_ends_with_two(make_up: MakeUp, arguments: list[str]) -> None:
    tree = make_up("1x4x2", {2})
    try:
        status = cli.main(["check", "--sysfs", str(tree.root), *arguments])
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
