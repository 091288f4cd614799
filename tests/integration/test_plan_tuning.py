"""systemd-tmpfiles accepts and applies what the plan writes for host tuning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from isolcpus_dp.plan import tmpfiles
from isolcpus_dp.report.check.settings import Cpus


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="no systemd-tmpfiles")
def test_systemd_tmpfiles_writes_to_the_files_of_isolated_cpus(tmp_path: Path) -> None:
    cpus = Cpus(frozenset(range(2, 12)), frozenset({0, 1}))
    root = tmp_path / "root"
    found = {}
    for cpu in range(12):
        found[cpu] = root / f"sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us"
        found[cpu].parent.mkdir(parents=True)
        found[cpu].write_text("0")
    mask = root / "sys/devices/virtual/workqueue/cpumask"
    mask.parent.mkdir(parents=True)
    mask.write_text("f")
    _, rules = tmpfiles.files(cpus)
    (tmp_path / "isolcpus-dp.conf").write_text(rules.text)
    # There are no frequency governors and no /proc: such lines are skipped.
    done = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={root}", tmp_path / "isolcpus-dp.conf"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert mask.read_text().strip() == "3"
    written = {cpu: file.read_text().strip()[:2] for cpu, file in found.items()}
    assert written == {cpu: "10" if cpu > 1 else "0" for cpu in range(12)}
