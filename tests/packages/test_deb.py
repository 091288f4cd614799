"""The Debian packages: lintian, reproducible builds, and installation without systemd."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from isolcpus_dp import __version__

from .build import BUILDERS, TOP, WITHOUT_TESTS, build_in, packages, previous
from .root import Recipe, Root, unpacked

SUITES = ("bookworm", "trixie")
CONFIGURATION = "/etc/isolcpus-dp/isolcpus-dp.conf"
# Keep the administrator's file if both the file and the packaged sample have changed.
KEEP = "-o Dpkg::Options::=--force-confold"
# The packages follow the policy of the oldest supported Debian. Later versions of lintian report
# that policy version, and tags that they have dropped.
LATER_POLICY = {
    "bookworm": "",
    "trixie": "--suppress-tags alien-tag,out-of-date-standards-version",
}
# The build must not depend on these variables.
ELSEWHERE = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "LANG": "de_DE", "HOME": "/nowhere"}
UNITS = ("isolcpus-dp.service", "isolcpus-dp-kubelet.path", "isolcpus-dp-pin.service")


def digests(directory: Path) -> dict[str, str]:
    """The files that a build has written, except those that describe the build itself."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.iterdir()
        if file.is_file() and file.suffix not in (".buildinfo", ".changes", ".log")
    }


def found(root: Root) -> str:
    """All paths in the root with isolcpus in their name, except logs."""
    return root.run(
        "find / -xdev -path /proc -prune -o -iname '*isolcpus*' -not -path '/packages/*' -print"
        " | grep -v ^/var/log/ || true"
    ).stdout


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[Root]:
    """A minimal Debian with this version in /packages/new and the previous one in /packages/old."""
    built_on, suite = request.param
    with unpacked(Recipe(suite)) as root:
        for age, files in (("new", packages(built_on)), ("old", previous())):
            root.path(f"/packages/{age}").mkdir(parents=True)
            for file in files:
                shutil.copy(file, root.path(f"/packages/{age}"))
        yield root


@pytest.mark.parametrize("suite", SUITES)
def test_lintian_reports_nothing_and_builds_are_reproducible(suite: str) -> None:
    with unpacked(BUILDERS[suite]) as root:
        built = build_in(root, "/first", environment={})
        assert re.search(r"^\d{3,} passed", (built / "build.log").read_text(), re.MULTILINE)
        first = digests(built)
        # Another directory, locale and umask, with the leftovers of the first build.
        root.run(
            "mkdir /tmp/second && mv /first/deb /tmp/second && cp /first/*.orig.* /tmp/second &&"
            " umask 077 && cd /tmp/second/deb && dpkg-buildpackage --no-sign",
            network=False,
            environment={**WITHOUT_TESTS, **ELSEWHERE},
        )
        assert digests(root.path("/tmp/second")) == first
        assert {name.partition("_")[0] for name in first} == {"isolcpus-dp", "isolcpus-dp-pin"}
        assert {name.rpartition(".")[2] for name in first} == {"deb", "dsc", "gz", "xz"}
        report = root.run(
            f"lintian --allow-root --pedantic -I {LATER_POLICY[suite]} /first/*.changes",
            check=False,
        )
        assert report.stdout == ""


@pytest.mark.parametrize(
    "root",
    [(built_on, suite) for built_on in SUITES for suite in SUITES],
    ids=lambda both: f"built on {both[0]}, installed on {both[1]}",
    indirect=True,
)
def test_package_can_be_used_and_purged_without_systemd(root: Root) -> None:
    assert root.run("test -e /run/systemd/system", check=False).returncode == 1
    root.run("apt-get install -qq --yes /packages/new/*.deb")
    for unit in UNITS:
        root.run(f"test -e /etc/systemd/system/multi-user.target.wants/{unit}")
    assert not root.path("/var/lib/kubelet").exists()
    assert root.run("isolcpus-dp --version").stdout == f"isolcpus-dp {__version__}\n"
    assert root.path("/usr/lib/python3/dist-packages/isolcpus_dp/py.typed").exists()
    # As at the start of systemd, with a kubelet of Type=notify.
    root.run(
        "printf '[Service]\\nType=notify\\n' >/etc/systemd/system/kubelet.service &&"
        " /usr/lib/systemd/system-generators/isolcpus-dp-generator /generator /early /late"
    )
    order = root.path("/generator/isolcpus-dp.service.d/kubelet-order.conf")
    assert "\nBefore=kubelet.service\n" in order.read_text()
    shutil.rmtree(root.path("/generator"))
    shutil.copy(TOP / "packaging/deb/tests/daemon", root.path("/packages"))
    assert root.run("/packages/daemon").stdout == "registered, and a pod owns CPUs 1 and 9\n"

    root.run("apt-get remove -qq --yes isolcpus-dp")
    assert root.path(CONFIGURATION).exists()
    root.run("apt-get purge -qq --yes isolcpus-dp isolcpus-dp-pin")
    assert found(root) == ""


@pytest.mark.parametrize("root", [("trixie", "trixie")], ids=["trixie"], indirect=True)
def test_changed_configuration_is_kept_by_every_installation(root: Root) -> None:
    if not previous():
        pytest.skip("without git history there is no previous version")
    root.run("apt-get install -qq --yes --no-install-recommends /packages/old/*.deb")
    mine = "[Plugin]\nCPUs=2\n"
    root.path(CONFIGURATION).write_text(mine)
    for change in (
        "/packages/new/*.deb",
        "--allow-downgrades /packages/old/*.deb",
        "/packages/new/*.deb",
        "--reinstall /packages/new/*.deb",
    ):
        root.run(f"apt-get install -qq --yes --no-install-recommends {KEEP} {change}")
        assert root.path(CONFIGURATION).read_text() == mine
    assert root.run("dpkg --audit").stdout == ""
    root.run("apt-get purge -qq --yes isolcpus-dp isolcpus-dp-pin")
    assert found(root) == ""


@pytest.mark.parametrize("root", [("bookworm", "bookworm")], ids=["bookworm"], indirect=True)
def test_autopkgtest_of_the_package_passes(root: Root, tmp_path: Path) -> None:
    tree = tmp_path / "source"
    shutil.copytree(TOP / "packaging/deb", tree / "debian")
    ended = root.run_on_host(
        "autopkgtest",
        "--no-built-binaries",
        *packages("bookworm"),
        tree,
        "--",
        "chroot",
        root.directory,
    )
    assert "daemon               PASS" in ended.stdout, ended.stdout
    # It needs running units; tests/vm runs it.
    assert "service              SKIP" in ended.stdout
    # Bit 2: a test was skipped.
    assert ended.returncode == 2
