"""An RPM distribution in a directory: builds packages, keeps a repository and installs hosts.

The dependencies of isolcpus-dp are stand-ins: empty packages with the right names, except for a
shell that runs scriptlets, and a systemctl and a journalctl that record their arguments. The
host's own RPM database is not changed.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .build import BUILD, archive

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

# By package: what it provides besides its name. {0} is the version of Python, such as 3.11. As for
# EL 10, there is no python3-sdnotify.
DEPENDENCIES = {
    "filesystem": (),
    "bash": ("/bin/sh",),
    "systemd": (),
    "python3": (PYTHON, "python(abi) = {0}"),
    "python3-grpcio": ("python{0}dist(grpcio)",),
    "python3-protobuf": ("python{0}dist(protobuf)",),
    "python3-pyudev": ("python{0}dist(pyudev)",),
    "python3-setuptools": ("python{0}dist(setuptools)",),
    "python3-systemd": ("python{0}dist(systemd-python)",),
}

# Directories of the distribution. Any other that remains after a removal is a leftover.
DIRECTORIES = {
    "filesystem": (
        "/dev",
        "/etc",
        "/run",
        "/tmp",
        "/usr/bin",
        "/usr/share/bash-completion/completions",
        "/usr/share/doc",
        "/usr/share/licenses",
        "/usr/share/man/man5",
        "/usr/share/man/man8",
        "/var/log",
    ),
    "systemd": (
        "/usr/lib/systemd/catalog",
        "/usr/lib/systemd/system",
        "/usr/lib/systemd/system-generators",
    ),
    "python3": ("/usr/lib/python{0}/site-packages",),
}

CALLS = Path("tmp/calls")

# Like the real programs, they fail if systemd is not running.
_RECORDER = f"""#!/bin/sh
echo "${{0##*/}} $*" >>/{CALLS}
[ -d /run/systemd/system ]
"""

_SPEC = """
%global debug_package %{nil}
%global __os_install_post %{nil}
Name:           stand-ins
Version:        1
Release:        1
Summary:        Stand-ins for the dependencies of isolcpus-dp
License:        Apache-2.0
%description
%{summary}.
%install
cp -a @FILES@/. %{buildroot}
"""

_PACKAGE = """
%package -n {name}
Summary:        Stands in for {name}
AutoReqProv:    no
{provides}
%description -n {name}
%{{summary}}.
%files -n {name}
{files}
"""


def python_version() -> str:
    """The version of Debian's Python, such as 3.11, for which Debian's rpmbuild builds."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run(
        [PYTHON, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def as_made() -> list[Path]:
    """The packages that `make rpm` has built from the source archive, sorted by name."""
    files = sorted((BUILD / "rpm").glob("*.rpm"))
    oldest = min((file.stat().st_mtime for file in files), default=0.0)
    assert oldest >= archive().stat().st_mtime, "missing or older than the archive: run make rpm"
    return files


class Distribution:
    """Builds and publishes packages in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.repository = directory / "repository"
        self.repository.mkdir()
        # Debian's rpm has its database in the home directory, the hosts have it in /var/lib/rpm, as
        # in RPM distributions.
        self._home = self._make_home("home", directory / "db")
        self._hosts_home = self._make_home("hosts-home", Path("/var/lib/rpm"))
        self._configuration = directory / "dnf.conf"
        self._configuration.write_text("[main]\nreposdir=/nowhere\nvarsdir=/nowhere\n")

    def _make_home(self, name: str, database: Path) -> Path:
        home = self.directory / name
        home.mkdir()
        (home / ".rpmmacros").write_text(f"%_dbpath {database}\n")
        return home

    def run(self, *command: str | Path, cwd: Path = ROOT, home: Path | None = None) -> str:
        """Runs a command and returns its output. Raises AssertionError if it fails."""
        environment = {"PATH": PATH, "HOME": str(home or self._home), "LC_ALL": "C.UTF-8"}
        ended = subprocess.run(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}"
        return ended.stdout

    def archive_of_previous_version(self, archive: Path) -> Path:
        """The archive changed to version 0.0.1, with a different sample configuration."""
        self.run("tar", "--extract", "--file", archive, cwd=self.directory)
        tree = self.directory / archive.name[: -len(".tar.gz")]
        version = tree.name.rpartition("-")[2]
        package, spec = tree / "isolcpus_dp/__init__.py", tree / "packaging/rpm/isolcpus-dp.spec"
        package.write_text(package.read_text().replace(f'"{version}"', '"0.0.1"'))
        text, _, entries = spec.read_text().partition("%changelog\n")
        day, _, _ = entries.partition(" - ")
        spec.write_text(
            text.replace(f"Version:        {version}\n", "Version:        0.0.1\n")
            + f"%changelog\n{day} - 0.0.1-1\n- A stand-in for the previous version.\n"
        )
        with (tree / "packaging/isolcpus-dp.conf").open("a") as sample:
            sample.write("# Of the previous version.\n")
        before = self.directory / "isolcpus-dp-0.0.1.tar.gz"
        self.run("tools/dist", before, cwd=tree)
        return before

    def build(self, archive: Path, directory: Path, *options: str) -> list[Path]:
        """The packages that tools/rpm builds without a network, sorted by name."""
        self.run("unshare", "--net", "tools/rpm", archive, directory, *options)
        return sorted(directory.glob("*.rpm"))

    def build_stand_ins(self) -> None:
        """Builds the dependencies into the repository."""
        files, version = self.directory / "files", python_version()
        directories = {
            name: [path.format(version) for path in paths] for name, paths in DIRECTORIES.items()
        }
        for path in (path for paths in directories.values() for path in paths):
            (files / path[1:]).mkdir(parents=True)
        (files / "bin").symlink_to("usr/bin")
        programs = files / "usr/bin"
        shutil.copy("/bin/busybox", programs / "sh")
        for name in ("journalctl", "systemctl"):
            (programs / name).write_text(_RECORDER)
            (programs / name).chmod(0o755)
        contents = {
            "filesystem": ["/bin"],
            "bash": ["/usr/bin/sh"],
            "systemd": ["/usr/bin/journalctl", "/usr/bin/systemctl"],
        }
        packages = [
            _PACKAGE.format(
                name=name,
                provides="\n".join(f"Provides: {one.format(version)}" for one in provides),
                files="\n".join(
                    [
                        *(f"%dir {path}" for path in directories.get(name, ())),
                        *contents.get(name, ()),
                    ]
                ),
            )
            for name, provides in DEPENDENCIES.items()
        ]
        spec = self.directory / "stand-ins.spec"
        spec.write_text(_SPEC.replace("@FILES@", str(files)) + "".join(packages))
        self.run(
            *("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {self.directory}/tree"),
            *("--define", f"_rpmdir {self.repository}", spec),
        )

    def publish(self) -> None:
        """Updates the metadata of the repository for dnf."""
        self.run("createrepo_c", "--quiet", self.repository)

    def dnf(self, root: Path, *arguments: str) -> str:
        """Runs dnf on the host in a directory, and returns its output."""
        return self.run(
            *("dnf", f"--config={self._configuration}", f"--installroot={root}", "--assumeyes"),
            *("--noplugins", "--nogpgcheck", "--releasever=1", "--disablerepo=*"),
            f"--repofrompath=here,file://{self.repository}",
            *("--setopt=clean_requirements_on_remove=False", "--setopt=here.metadata_expire=0"),
            *arguments,
            home=self._hosts_home,
        )

    def rpm_at(self, root: Path, *arguments: str | Path) -> str:
        """Runs rpm on the host in a directory, and returns its output."""
        return self.run("rpm", "--root", root, *arguments, home=self._hosts_home)


@dataclass(frozen=True)
class Host:
    """A host in a directory, with the stand-ins and what a test installs."""

    distribution: Distribution
    root: Path

    def install_distribution(self) -> None:
        """Installs the stand-ins and what scriptlets need, as an image builder does."""
        self.dnf("install", *DEPENDENCIES)
        os.mknod(self.root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        (self.root / CALLS).touch()

    def boot(self) -> None:
        """Makes scriptlets think that systemd runs."""
        (self.root / "run/systemd/system").mkdir(parents=True)

    def dnf(self, *arguments: str) -> str:
        return self.distribution.dnf(self.root, *arguments)

    def rpm(self, *arguments: str | Path) -> str:
        return self.distribution.rpm_at(self.root, *arguments)

    def calls(self) -> list[str]:
        """The calls of systemctl and journalctl since the last call of this method."""
        file = self.root / CALLS
        lines = file.read_text().splitlines()
        file.write_text("")
        return lines

    def files(self) -> set[str]:
        """All files and directories except those of dnf and rpm."""
        own = ("/var/cache/dnf", "/var/lib/dnf", "/var/lib/rpm", "/var/log", "/var/tmp", "/tmp")
        found = {f"/{path.relative_to(self.root)}" for path in self.root.rglob("*")}
        return {path for path in found if not path.startswith(own)}
