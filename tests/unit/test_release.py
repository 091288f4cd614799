"""The version and the news are the same in the package, the changelogs and the spec."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path

from isolcpus_dp import __version__

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / "packaging/deb/changelog"
SPEC = ROOT / "packaging/rpm/isolcpus-dp.spec"


def first(pattern: str, file: Path) -> tuple[str, ...]:
    """The groups of the pattern in the first line of the file that begins with it."""
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


def test_newest_entry_of_debians_changelog_has_the_version() -> None:
    assert first(r"isolcpus-dp \((.+)-[0-9]+\) ", DEBIAN) == (__version__,)


def test_newest_entry_of_the_spec_has_version_and_release() -> None:
    [release] = first(r"Release: +([0-9]+)%\{\?dist\}$", SPEC)
    assert first(r"\* .+ - (.+)$", SPEC) == (f"{__version__}-{release}",)


def joined(text: str) -> str:
    """A paragraph as one line."""
    return " ".join(text.split())


def releases_in_news() -> dict[str, tuple[dt.date, list[str]]]:
    """By version: the date, and the items before the first section, without backticks."""
    found = {}
    for section in (ROOT / "NEWS.md").read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        if title != "Unreleased":
            [(version, date)] = re.findall(r"^([0-9.]+) \(([0-9-]+)\)$", title)
            important = f"\n{text}".partition("\n### ")[0]
            items = [joined(item.replace("`", "")) for item in important.split("\n- ")[1:]]
            found[version] = (dt.date.fromisoformat(date), items)
    return found


def test_newest_release_in_the_news_is_the_version() -> None:
    assert next(iter(releases_in_news())) == __version__


def day(text: str, form: str) -> dt.date:
    """Parses a date of a changelog, and checks its day of the week."""
    date = dt.datetime.strptime(f"{text} +0000", f"{form} %z").date()
    assert date.strftime(form) == text
    return date


def test_debians_changelog_has_the_news() -> None:
    found = {}
    for entry in re.split(r"^(?=isolcpus-dp \()", DEBIAN.read_text(), flags=re.MULTILINE)[1:]:
        [version] = re.findall(r"^isolcpus-dp \(([0-9.]+)[-)]", entry)
        [date] = re.findall(r"^ -- .+>  (.+) [0-9:]{8} \+0000$", entry, re.MULTILINE)
        items = [joined(item) for item in entry.partition("\n -- ")[0].split("\n  * ")[1:]]
        found[version] = (day(date, "%a, %d %b %Y"), items)
    assert found == releases_in_news()


def test_changelog_of_the_spec_has_the_news() -> None:
    found = {}
    for entry in SPEC.read_text().partition("%changelog\n")[2].split("* ")[1:]:
        title, _, changes = entry.partition("\n")
        [(date, version)] = re.findall(r"^(.+) isolcpus-dp developers .+ - ([0-9.]+)-", title)
        items = [joined(item) for item in f"\n{changes}".split("\n- ")[1:]]
        found[version] = (day(date, "%a %b %d %Y"), items)
    assert found == releases_in_news()
