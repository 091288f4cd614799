"""One version number: the package's, and the same wherever the packaging has to repeat it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from isolcpus_dp import __version__

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "packaging/rpm/isolcpus-dp.spec"


def first(pattern: str, file: Path) -> tuple[str, ...]:
    """The groups of the first line of the file that the pattern begins."""
    found = re.search(f"^{pattern}", file.read_text(), re.MULTILINE)
    assert found, f"{file} has no line like {pattern}"
    return found.groups()


def test_version_is_a_release() -> None:
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", __version__)


def test_command_prints_the_version() -> None:
    command = [sys.executable, "-m", "isolcpus_dp", "--version"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"isolcpus-dp {__version__}\n", "")


def test_setup_and_makefile_read_the_version_of_the_package() -> None:
    assert "\nversion = attr: isolcpus_dp.__version__\n" in (ROOT / "setup.cfg").read_text()
    for file in ("Makefile", "tools/dist"):
        [expression] = re.findall(
            r"sed -n '(s/\^__version__.+?)' (\S+?)\)", (ROOT / file).read_text()
        )
        ended = subprocess.run(
            ["sed", "-n", *expression], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert ended.stdout == f"{__version__}\n", file


def test_spec_has_the_version() -> None:
    assert first(r"Version: +(.+)$", SPEC) == (__version__,)


def test_newest_entry_of_debians_changelog_is_of_the_version() -> None:
    changelog = ROOT / "packaging/deb/changelog"
    assert first(r"isolcpus-dp \((.+)-[0-9]+\) ", changelog) == (__version__,)


def test_newest_entry_of_the_specs_changelog_is_of_the_version_and_release() -> None:
    [release] = first(r"Release: +([0-9]+)%\{\?dist\}$", SPEC)
    assert first(r"\* .+ - (.+)$", SPEC) == (f"{__version__}-{release}",)


def test_both_changelogs_tell_of_the_same_releases_on_the_same_days() -> None:
    debian = (ROOT / "packaging/deb/changelog").read_text()
    days = re.findall(r"^ -- .+>  (\w+), (\d+) (\w+) (\d+) ", debian, re.MULTILINE)
    versions = re.findall(r"^isolcpus-dp \(([0-9.]+)[-)]", debian, re.MULTILINE)
    entries = re.findall(r"^\* (.+) isolcpus-dp developers .+ - ([0-9.]+)-", SPEC.read_text(), re.M)
    assert entries == [
        (f"{weekday} {month} {int(day):02} {year}", version)
        for (weekday, day, month, year), version in zip(days, versions)
    ]
