"""Every check has a statement about what the plan does for it."""

from __future__ import annotations

import re
from pathlib import Path

from isolcpus_dp.plan.coverage import COVERAGE
from isolcpus_dp.report.check import table
from isolcpus_dp.report.check.settings import SETTINGS

PARTS = {"kernel", "systemd", "kubelet", "runtime", "tuning", "plugin"}
PAGE = Path(__file__).parents[3] / "docs/plan.md"


def test_every_check_has_a_statement() -> None:
    assert list(COVERAGE) == [check.id for check in table.CHECKS]


def test_statements_name_parts_of_the_plan() -> None:
    for check, coverage in COVERAGE.items():
        assert set(coverage.parts) <= PARTS, check
        assert coverage.how, check


def test_settings_are_written_by_the_part_tuning() -> None:
    wanted = {setting.check for setting in SETTINGS} | {"irqbalance"}
    assert {check for check in wanted if "tuning" not in COVERAGE[check].parts} == set()


def test_page_has_the_statements() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z, ]+) \| (.+) \|$", PAGE.read_text(), re.M)
    assert [(check, parts, how.replace("`", "")) for check, parts, how in rows] == [
        (check, ", ".join(coverage.parts) or "none", coverage.how)
        for check, coverage in COVERAGE.items()
    ]
