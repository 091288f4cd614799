"""The watches of pods' CPU quotas."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from isolcpus_dp.host import inotify
from isolcpus_dp.nri.cgroup import Quotas


def watched() -> int:
    """The number of files and directories that this process watches with inotify."""
    return sum(
        file.read_text().count("inotify wd:")
        for file in Path("/proc/self/fdinfo").iterdir()
        if file.exists()  # the descriptor of the directory itself is already closed
    )


async def test_cgroups_of_ended_pods_are_no_longer_watched(tmp_path: Path) -> None:
    """The kernel keeps a watch on a file of a removed cgroup; a hard link does the same here."""
    kept = tmp_path / "kept"
    kept.mkdir()
    before = watched()
    with inotify.Watch() as watch:
        quotas = Quotas(tmp_path, watch)
        for number in range(200):
            pod = tmp_path / f"kubepods/pod{number}"
            pod.mkdir(parents=True)
            (pod / "cpu.max").write_text("10000 100000")
            os.link(pod / "cpu.max", kept / str(number))
            quotas.lift(f"/kubepods/pod{number}", f"default/{number}")
            assert (pod / "cpu.max").read_text() == "max"
            if number >= 10:
                shutil.rmtree(tmp_path / f"kubepods/pod{number - 10}")
        assert 0 < watched() - before < 50
