"""The arguments of the running kubelet in the distributions that start it."""

from __future__ import annotations

from pathlib import Path

import pytest

from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import flags, running
from isolcpus_dp.kubelet.flags import Arguments
from isolcpus_dp.kubelet.rancher import Places

NOWHERE = Places(Path("/nowhere"), Path("/nowhere"))


def process(proc: Path, name: str, cmdline: str, environ: str = "") -> None:
    """Process 90, of root."""
    files = {
        "comm": f"{name}\n",
        "status": f"Name:\t{name}\nUid:\t0\t0\t0\t0\n",
        "cmdline": cmdline,
        "environ": environ,
    }
    (proc / "90").mkdir(parents=True)
    for file, text in files.items():
        (proc / "90" / file).write_text(text)


def test_last_value_of_a_flag_counts() -> None:
    words = ["--v=2", "--config", "/a.yaml", "--v", "4", "--fail-swap-on", "word"]
    assert flags.parse(words) == {"v": "4", "config": "/a.yaml", "fail-swap-on": "word"}


def test_kubelet_has_its_arguments_in_its_command_line(tmp_path: Path) -> None:
    process(tmp_path, "kubelet", "/usr/bin/kubelet\0--root-dir=data\0--v=2\0")
    (tmp_path / "90/cwd").symlink_to("/var/lib")
    found = running.find(tmp_path, [(80, "bash"), (90, "kubelet")], NOWHERE)
    assert found == Arguments(
        "the command line of process 90", {"root-dir": "/var/lib/data", "v": "2"}
    )


def test_no_kubelet_has_no_arguments(tmp_path: Path) -> None:
    assert running.find(tmp_path, [(80, "bash")], NOWHERE) is None


def test_microk8s_has_them_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "args-kubelet"
    file.write_text(
        "# of the snap\n"
        "--root-dir=${SNAP_COMMON}/var/lib/kubelet\n"
        '--eviction-hard="memory.available<100Mi,nodefs.available<1Gi"\n'
        "--reserved-cpus=0,2-3\n"
        "--unknown=$OTHER\n"
    )
    process(
        tmp_path / "proc",
        "kubelite",
        f"/snap/microk8s/1/kubelite\0--kubelet-args-file={file}\0--start-control-plane=true\0",
        "SNAP_COMMON=/var/snap/microk8s/common\0",
    )
    assert running.find(tmp_path / "proc", [(90, "kubelite")], NOWHERE) == Arguments(
        str(file),
        {
            "root-dir": "/var/snap/microk8s/common/var/lib/kubelet",
            "eviction-hard": "memory.available<100Mi,nodefs.available<1Gi",
            "reserved-cpus": "0,2-3",
            "unknown": "$OTHER",
        },
    )


def test_file_of_arguments_must_be_roots_and_complete(tmp_path: Path) -> None:
    file = tmp_path / "args-kubelet"
    process(tmp_path / "proc", "kubelite", f"kubelite\0--kubelet-args-file={file}\0")
    file.write_text("--node-labels='a=b\n")
    with pytest.raises(Unseen, match=f"^{file} is not a file of arguments: No closing quotation"):
        running.of(tmp_path / "proc", 90, NOWHERE)
    file.chmod(0o666)
    with pytest.raises(Unseen, match=f"^{file} is not trusted: "):
        running.of(tmp_path / "proc", 90, NOWHERE)
