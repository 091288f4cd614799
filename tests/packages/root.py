"""Debian in a directory, in which packages are built, installed and run, but not as services.

This is how images and packages are built: without systemd or a kubelet, on the host's kernel.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.image import (
    MEMORY,
    acquire_options,
    apt_sources,
    cache_directory,
    locked,
    mmdebstrap,
    require_tools,
)

# After this time the package lists may name versions that are no longer in the archive.
MAX_AGE_SECONDS = 24 * 3600

# Runs in its own namespaces: no mount and no process remains when the command has ended.
MOUNT = """\
set -e
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t sysfs sysfs "$1/sys"
shift
exec "$@"
"""


@dataclass(frozen=True)
class Recipe:
    """A Debian suite, and the packages to install in addition to the minimal system."""

    suite: str
    packages: tuple[str, ...] = ()
    apt_options: tuple[str, ...] = ()  # lines of apt.conf

    @property
    def name(self) -> str:
        packages = hashlib.sha256(repr(self.packages).encode()).hexdigest()[:8]
        return f"{self.suite}-{packages}"

    def key(self) -> str:
        return hashlib.sha256(repr(self).encode() + Path(__file__).read_bytes()).hexdigest()[:16]


class Root:
    """A directory with a Debian system."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(
        self,
        command: str,
        *,
        network: bool = True,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a bash command in it as root. With `check`, raises AssertionError if it fails."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
            **(environment or {}),
        }
        namespaces = () if network else ("--net",)
        ended = self.run_on_host(
            "chroot",
            self.directory,
            "bash",
            "-c",
            command,
            namespaces=namespaces,
            environment=environment,
        )
        assert not check or ended.returncode == 0, (
            f"failed in {self.directory}: {command}\nexit status {ended.returncode}\n{ended.stdout}"
        )
        return ended

    def run_on_host(
        self,
        *command: str | Path,
        namespaces: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of the host, with proc, dev and sys mounted in the root."""
        return subprocess.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", *namespaces),
                *("sh", "-c", MOUNT, "sh", self.directory, *command),
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )

    def install(self, *packages: str) -> None:
        """Installs packages: a name from the archive, or a path in the root."""
        self.run(f"apt-get install -qq --yes --no-install-recommends {' '.join(packages)}")

    def path(self, inside: str) -> Path:
        """The path on the host of a path in the root."""
        return self.directory / inside.lstrip("/")


@contextmanager
def unpacked(recipe: Recipe) -> Iterator[Root]:
    """A new root made by this recipe, removed at the end of the block."""
    archive = _cached(recipe)
    with tempfile.TemporaryDirectory(prefix=f"{recipe.suite}-", dir=MEMORY) as name:
        directory = Path(name) / "root"
        directory.mkdir()
        subprocess.run(
            ["tar", "--extract", "--file", archive, "--directory", directory], check=True
        )
        (directory / "etc/hosts").write_text("127.0.0.1 localhost\n")
        yield Root(directory)


def _cached(recipe: Recipe) -> Path:
    """An archive of the recipe's root; rebuilt if it is missing or too old."""
    directory = cache_directory().parent / "root"
    directory.mkdir(parents=True, exist_ok=True)
    archive = directory / f"{recipe.name}-{recipe.key()}.tar"
    with locked(directory):
        if not archive.exists() or time.time() - archive.stat().st_mtime > MAX_AGE_SECONDS:
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                made = _make(recipe, Path(scratch))
                for outdated in directory.glob(f"{recipe.name}-*.tar"):
                    outdated.unlink()
                made.rename(archive)
    return archive


def _make(recipe: Recipe, scratch: Path) -> Path:
    require_tools()
    options, archive = scratch / "apt.conf", scratch / "root.tar"
    options.write_text(acquire_options())
    mmdebstrap(
        "--quiet",
        *(f"--include={package}" for package in recipe.packages),
        f"--aptopt={options}",
        *(f"--aptopt={option}" for option in recipe.apt_options),
        # A test root need not survive a power failure.
        "--dpkgopt=force-unsafe-io",
        # Kept to install more packages later.
        "--skip=cleanup/apt/lists",
        suite=recipe.suite,
        target=archive,
        sources=apt_sources(recipe.suite, scratch),
        environment={**os.environ, "TMPDIR": str(MEMORY or tempfile.gettempdir())},
    )
    return archive
