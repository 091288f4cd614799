"""The Debian packages under test, built from the source archive in each supported Debian suite."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import isolcpus_dp

from .root import Recipe, Root, unpacked

TOP = Path(__file__).parents[2]
BUILD = TOP / "build"

# Only what every build needs: the Build-Depends of the package must name the rest.
BUILDERS = {
    suite: Recipe(suite, ("build-essential", "fakeroot", "lintian"))
    for suite in ("bookworm", "trixie")
}

# Skips the tests of the build and their dependencies.
WITHOUT_TESTS = {"DEB_BUILD_OPTIONS": "nocheck", "DEB_BUILD_PROFILES": "nocheck"}


def archive() -> Path:
    """The source archive that `make dist` has written."""
    return BUILD / f"isolcpus-dp-{isolcpus_dp.__version__}.tar.gz"


def build_in(root: Root, directory: str, environment: Mapping[str, str] = WITHOUT_TESTS) -> Path:
    """Builds without a network in a directory of the root. Returns its path on the host."""
    source = root.path("/source")
    source.mkdir()
    subprocess.run(
        ["tar", "--extract", "--strip-components=1", "-f", archive(), "-C", source], check=True
    )
    shutil.copy(archive(), source)
    (source / "debian").symlink_to("packaging/deb")
    root.run("apt-get build-dep -qq --yes --no-install-recommends /source", environment=environment)
    (source / "debian").unlink()
    built = root.run(
        f"mkdir -p {directory} && cd /source && tools/deb {archive().name} {directory}",
        network=False,
        environment=environment,
    )
    root.path(f"{directory}/build.log").write_text(built.stdout)
    return root.path(directory)


def as_made() -> list[Path]:
    """Both binary packages that `make deb` has built: isolcpus-dp, then isolcpus-dp-pin."""
    changelog = (TOP / "packaging/deb/changelog").read_text()
    version = changelog[changelog.index("(") + 1 : changelog.index(")")]
    files = [BUILD / f"{name}_{version}_all.deb" for name in ("isolcpus-dp", "isolcpus-dp-pin")]
    assert all(file.exists() for file in files), f"{files} are missing: run make deb"
    return files


def packages(suite: str) -> list[Path]:
    """Both binary packages, built in this suite, once for each source archive."""
    directory = BUILD / "packages" / suite
    with _locked(directory):
        built_from = directory / archive().name
        if not (built_from.exists() and built_from.read_bytes() == archive().read_bytes()):
            with unpacked(BUILDERS[suite]) as root:
                made = build_in(root, "/build")
                _replace(directory, [*made.glob("*.deb"), archive()])
    return sorted(directory.glob("*.deb"))


def previous() -> list[Path]:
    """Both binary packages of the previous version as released, built here from the git history.

    Empty if there is no history, as in an unpacked source archive.
    """
    if not (TOP / ".git").exists():
        return []
    directory = BUILD / "packages" / "previous"
    commit = _previous_release()
    assert commit, "the previous version is not in this clone: run git fetch --unshallow"
    with _locked(directory):
        if not (directory / commit).exists():
            source = BUILD / "previous"
            shutil.rmtree(source, ignore_errors=True)
            subprocess.run(["git", "clone", "--quiet", TOP, source], check=True)
            subprocess.run(["git", "checkout", "--quiet", commit], cwd=source, check=True)
            # Use Debian's own Python, not another one in the developer's PATH.
            environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            with (BUILD / "previous.log").open("w") as log:
                subprocess.run(
                    ["make", "deb"], cwd=source, env=environment, stdout=log, stderr=log, check=True
                )
            (source / commit).touch()
            _replace(directory, [*source.glob("build/*.deb"), source / commit])
    return sorted(directory.glob("*.deb"))


def _previous_release() -> str:
    """The commit that added the previous version to the changelog; empty if it is not there.

    In a shallow clone, the oldest commit seems to add the whole changelog.
    """
    changelog = (TOP / "packaging/deb/changelog").read_text()
    _, before, *_ = re.findall(r"^isolcpus-dp \((.+)\) ", changelog, re.MULTILINE)
    line = rf"^isolcpus-dp \({re.escape(before)}\) "
    found = subprocess.run(
        ["git", "log", "-1", "--format=%H", f"-G{line}", "--", "packaging/deb/changelog"],
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    commit = found.stdout.strip()
    shown = subprocess.run(
        ["git", "show", f"{commit}:packaging/deb/changelog"],
        cwd=TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
    )
    return commit if re.match(line, shown.stdout) else ""


def _replace(directory: Path, files: list[Path]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for file in files:
        shutil.copy(file, directory)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
