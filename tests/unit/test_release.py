"""One version number: setup.cfg's, and the same wherever a package has to repeat it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "packaging/rpm/isolcpus-dp.spec"


def version() -> str:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup["metadata"]["version"]


def first(pattern: str, file: Path) -> tuple[str, ...]:
    """The groups of the first line of the file that the pattern begins."""
    found = re.search(f"^{pattern}", file.read_text(), re.MULTILINE)
    assert found, f"{file} has no line like {pattern}"
    return found.groups()


def test_version_is_a_release() -> None:
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version())


def test_spec_has_the_version() -> None:
    assert first(r"Version: +(.+)$", SPEC) == (version(),)


def test_newest_entry_of_debians_changelog_is_of_the_version() -> None:
    changelog = ROOT / "packaging/deb/changelog"
    assert first(r"isolcpus-dp \((.+)-[0-9]+\) ", changelog) == (version(),)


def test_newest_entry_of_the_specs_changelog_is_of_the_version_and_release() -> None:
    [release] = first(r"Release: +([0-9]+)%\{\?dist\}$", SPEC)
    assert first(r"\* .+ - (.+)$", SPEC) == (f"{version()}-{release}",)


def test_both_changelogs_tell_of_the_same_releases_on_the_same_days() -> None:
    debian = (ROOT / "packaging/deb/changelog").read_text()
    days = re.findall(r"^ -- .+>  (\w+), (\d+) (\w+) (\d+) ", debian, re.MULTILINE)
    versions = re.findall(r"^isolcpus-dp \(([0-9.]+)[-)]", debian, re.MULTILINE)
    entries = re.findall(r"^\* (.+) isolcpus-dp developers .+ - ([0-9.]+)-", SPEC.read_text(), re.M)
    assert entries == [
        (f"{weekday} {month} {int(day):02} {year}", version)
        for (weekday, day, month, year), version in zip(days, versions)
    ]
