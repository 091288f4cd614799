"""`isolcpus-dp plan`: what it prints, its exit status, and how a host is compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from isolcpus_dp import cli
from isolcpus_dp.config import Config
from isolcpus_dp.plan import parts, show, wish
from isolcpus_dp.plan.parts import Plan

from .cases import case_of

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/plan.schema.json").read_text())


@pytest.fixture
def release(tmp_path: Path) -> Path:
    file = tmp_path / "os-release"
    file.write_text('PRETTY_NAME="Debian GNU/Linux 13"\nID=debian\nVERSION_ID="13"\n')
    return file


def small() -> Plan:
    case = case_of("1x4x1")
    return parts.make(wish.apply(case.machine, case.wish)[0], case.known, Config())


def test_text_has_a_block_for_each_part_and_what_follows() -> None:
    lines = show.as_text(small(), "isolcpus-dp plan --write /").splitlines()
    assert lines[:2] == ["isolated      CPU 1-3", "housekeeping  CPU 0"]
    # The text of a file is indented, and may have empty lines.
    blocks = [
        line.partition(":")[0]
        for line, before in zip(lines[1:], lines)
        if not before and not line.startswith(" ")
    ]
    assert blocks[:-1] == ["kernel", "systemd", "kubelet", "runtime", "tuning", "plugin"]
    following = lines[lines.index("") :][-9:]
    assert following == [
        "Next, as root; kubectl where it is configured, with the name of the node:",
        "  isolcpus-dp plan --write /",
        "  update-grub",
        "  kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
        "  systemctl stop kubelet",
        "  rm -f /var/lib/kubelet/cpu_manager_state",
        "  systemctl reboot",
        "  kubectl uncordon NODE",
        "  isolcpus-dp check",
    ]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"written": ["/etc/a"], "removed": ["/etc/b"]},
        {"written": [], "removed": []},
        {"differences": ["x is missing"]},
    ],
)
def test_json_is_as_the_schema_describes(more: dict[str, list[str]]) -> None:
    printed = json.loads(show.as_json(small(), **more))
    jsonschema.validate(printed, SCHEMA)
    assert printed["isolated"] == "1-3"
    assert set(printed) - set(SCHEMA["required"]) == set(more)


def test_plan_for_a_machine_that_is_not_here(
    release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--machine", "2x4x2", "--isolate", "2-3,10-11", "--os-release", str(release)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("isolated      CPU 2-3,10-11\nhousekeeping  CPU 0-1,4-9,12-15\n")
    assert "  isolcpus-dp plan --isolate 2-3,10-11 --write /\n" in printed


def test_written_files_are_listed(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    words = ["plan", "--machine", "1x4x1", "--os-release", str(release), "--write", str(root)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    written = {line for line in printed if line.startswith("wrote ")}
    assert written == {f"wrote {path}" for path in root.rglob("*") if path.is_file()}
    assert f"wrote {root}/etc/default/grub.d/90-isolcpus-dp.cfg" in written
    assert cli.main([*words, "--json"]) == 0
    printed_again = json.loads(capsys.readouterr().out)
    assert (printed_again["written"], printed_again["removed"]) == ([], [])


def test_removed_files_are_listed(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grub = tmp_path / "etc/default/grub.d/90-isolcpus-dp.cfg"
    words = ["plan", "--machine", "1x4x1", "--os-release", str(release), "--write", str(tmp_path)]
    assert cli.main(words) == 0
    assert grub.exists()
    release.write_text("ID=fedora\n")
    capsys.readouterr()
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"removed {grub}"
    assert not grub.exists()


def test_file_of_others_is_a_failure(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "etc/default/grub.d/90-isolcpus-dp.cfg"
    other.parent.mkdir(parents=True)
    other.write_text("GRUB_TIMEOUT=1\n")
    words = ["plan", "--machine", "1x4x1", "--os-release", str(release), "--write", str(tmp_path)]
    assert cli.main(words) == 1
    assert capsys.readouterr().err.startswith(f"{other} exists and was not written by")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--machine", "2x4"], "--machine '2x4' is not a machine: use packages x cores x threads"),
        (["--machine", "1x2x1", "--isolate", "0"], "--isolate 0: CPU 0 is the core on which"),
        (["--diff", "--write", "/"], "--diff writes nothing: leave out --write"),
        (["--diff", "--machine", "1x4x1"], "--diff compares this host: leave out --machine"),
        (["--os-release", "/no/such"], "--os-release /no/such: there is no such file"),
    ],
)
def test_wrong_usage_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", *words]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(sentence)
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize(
    "words", [["--housekeeping", "0"], ["--housekeeping", "x"], ["--isolate-type", "fast"]]
)
def test_wrong_values_of_options_are_rejected(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", *words])
    assert ended.value.code == 2


def test_host_without_pods_is_not_drained() -> None:
    commands = replace(small(), drain=False).commands
    assert not [command for command in commands if command.startswith("kubectl")]
