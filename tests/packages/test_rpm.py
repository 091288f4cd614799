"""The RPM packages that `make rpm` has built: contents, and installation with dnf."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# As the command line does, before gRPC is loaded: Python 3.9 runs its handlers before an exec.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from isolcpus_dp import __version__
from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator.kubelet import Kubelet
from isolcpus_dp.simulator.machine import MadeUpMachine, regular
from isolcpus_dp.simulator.supervisor import Supervisor

from .build import archive
from .rpm import PATH, PYTHON, ROOT, Distribution, Host, as_made, python_version

SPEC = ROOT / "packaging/rpm/isolcpus-dp.spec"
SITE_PACKAGES = f"/usr/lib/python{python_version()}/site-packages"
DEVICE_PLUGINS = Path("var/lib/kubelet/device-plugins")
CONFIGURATION = "etc/isolcpus-dp/isolcpus-dp.conf"
RESOURCE = "windriver.com/isolcpus"

BOTH = ("isolcpus-dp", "isolcpus-dp-pin")
PREVIOUS = tuple(f"{name}-0.0.1" for name in BOTH)

CATALOGUE = "journalctl --update-catalog"
PRESET = "systemctl --no-reload preset isolcpus-dp.service isolcpus-dp-kubelet.path"
PRESET_PIN = "systemctl --no-reload preset isolcpus-dp-pin.service"
DISABLE = "systemctl --no-reload disable --now isolcpus-dp.service isolcpus-dp-kubelet.path"
DISABLE_PIN = "systemctl --no-reload disable --now isolcpus-dp-pin.service"
RELOAD = "systemctl daemon-reload"
RESTART = "systemctl try-restart isolcpus-dp.service isolcpus-dp-kubelet.path"
RESTART_PIN = "systemctl try-restart isolcpus-dp-pin.service"

# The host's own state of rpm and dnf, which the tests must not change.
HOST_PATHS = [
    Path(name)
    for name in ("/var/lib/rpm", "/var/lib/dnf", "/var/cache/dnf", "/root/.rpmdb", "/var/log")
]


@dataclass(frozen=True)
class Packages:
    """The distribution and the packages of isolcpus-dp in it."""

    distribution: Distribution
    archive: Path
    version: str
    source: Path
    main: Path
    pin: Path
    host_state: dict[Path, str]

    def rpm(self, *arguments: str | Path) -> list[str]:
        return self.distribution.run("rpm", *arguments).splitlines()


def host_state() -> dict[Path, str]:
    """The files that dnf and rpm would write on the host itself, with their digests."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for directory in HOST_PATHS
        for path in directory.rglob("*")
        # Only their own logs, and no temporary files of a database, which reading changes.
        if path.is_file()
        and (directory.name != "log" or path.name.startswith(("dnf", "hawkey")))
        and not path.name.endswith(("-shm", "-wal"))
    }


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """A repository with isolcpus-dp, its previous version and stand-ins for its dependencies."""
    before = host_state()
    distribution = Distribution(tmp_path_factory.mktemp("rpm"))
    distribution.build_stand_ins()
    version = archive().name[len("isolcpus-dp-") : -len(".tar.gz")]
    made = as_made()
    # The new version has already passed the unit tests.
    previous = distribution.build(
        distribution.archive_of_previous_version(archive()),
        distribution.directory / "previous",
        "--without=tests",
    )
    for package in (*made, *previous):
        if package.match("*.noarch.rpm"):
            shutil.copy(package, distribution.repository)
    distribution.publish()
    main, source, pin = made
    return Packages(distribution, archive(), version, source, main, pin, before)


@pytest.fixture(scope="session")
def bare(packages: Packages) -> Host:
    """A host with only the stand-ins; it is copied for each test."""
    host = Host(packages.distribution, packages.distribution.directory / "bare")
    host.install_distribution()
    return host


@pytest.fixture
def host(bare: Host, tmp_path: Path) -> Host:
    """A host as in an image build: isolcpus-dp is not installed and systemd does not run."""
    root = tmp_path / "root"
    subprocess.run(["cp", "-a", bare.root, root], check=True)
    return Host(bare.distribution, root)


def has_no_warning(output: str) -> bool:
    """Whether dnf, rpm and the scriptlets printed no warning or error."""
    return re.search(r"warning|error|fail|not found|cannot", output, re.I) is None


def test_build_makes_three_packages(packages: Packages) -> None:
    assert [path.name for path in (packages.main, packages.source, packages.pin)] == [
        f"isolcpus-dp-{packages.version}-1.noarch.rpm",
        f"isolcpus-dp-{packages.version}-1.src.rpm",
        f"isolcpus-dp-pin-{packages.version}-1.noarch.rpm",
    ]


LISTED = "[%{FILEMODES:perms} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEFLAGS:fflags} %{FILENAMES}\n]"


def test_main_package_has_the_expected_files(packages: Packages) -> None:
    listed = packages.rpm("-qp", "--qf", LISTED, packages.main)
    pages = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*") if path.is_file()]
    doc, licenses = (
        f"/usr/share/{one}/isolcpus-dp-{packages.version}" for one in ("doc", "licenses")
    )
    assert [line for line in listed if SITE_PACKAGES not in line and doc not in line] == [
        "drwxr-xr-x root:root  /etc/isolcpus-dp",
        "-rw-r--r-- root:root cn /etc/isolcpus-dp/isolcpus-dp.conf",
        "drwxr-xr-x root:root  /etc/isolcpus-dp/isolcpus-dp.conf.d",
        "-rwxr-xr-x root:root  /usr/bin/isolcpus-dp",
        "-rw-r--r-- root:root  /usr/lib/systemd/catalog/isolcpus-dp.catalog",
        "-rwxr-xr-x root:root  /usr/lib/systemd/system-generators/isolcpus-dp-generator",
        "-rw-r--r-- root:root  /usr/lib/systemd/system/isolcpus-dp-kubelet.path",
        "-rw-r--r-- root:root  /usr/lib/systemd/system/isolcpus-dp-kubelet.service",
        "-rw-r--r-- root:root  /usr/lib/systemd/system/isolcpus-dp.service",
        "drwxr-xr-x root:root  /usr/lib/systemd/system/isolcpus-dp.service.d",
        "-rw-r--r-- root:root  /usr/lib/systemd/system/isolcpus-dp.service.d/kubelet-order.conf",
        "-rw-r--r-- root:root  /usr/share/bash-completion/completions/isolcpus-dp",
        f"drwxr-xr-x root:root  {licenses}",
        f"-rw-r--r-- root:root l {licenses}/LICENSE",
        "-rw-r--r-- root:root d /usr/share/man/man5/isolcpus-dp.conf.5.gz",
        "-rw-r--r-- root:root d /usr/share/man/man8/isolcpus-dp.8.gz",
        "drwxr-xr-x root:root  /usr/share/starlingx",
        "drwxr-xr-x root:root  /usr/share/starlingx/pmon.d",
        "-rw-r--r-- root:root  /usr/share/starlingx/pmon.d/isolcpus-dp.conf",
    ]
    assert {line for line in listed if doc in line} == {
        f"drwxr-xr-x root:root  {doc}",
        f"drwxr-xr-x root:root  {doc}/docs",
        f"drwxr-xr-x root:root  {doc}/docs/metrics",
        f"-rw-r--r-- root:root d {doc}/NEWS.md",
        f"-rw-r--r-- root:root d {doc}/README.md",
        *(f"-rw-r--r-- root:root d {doc}/{page}" for page in pages),
    }


def test_pin_package_has_the_expected_files(packages: Packages) -> None:
    licenses = f"/usr/share/licenses/isolcpus-dp-pin-{packages.version}"
    assert packages.rpm("-qp", "--qf", LISTED, packages.pin) == [
        "-rw-r--r-- root:root  /usr/lib/systemd/system/isolcpus-dp-pin.service",
        f"drwxr-xr-x root:root  {licenses}",
        f"-rw-r--r-- root:root l {licenses}/LICENSE",
    ]


def test_python_package_has_all_modules_and_their_bytecode(
    packages: Packages,
) -> None:
    listed = packages.rpm("-qp", "--qf", LISTED, packages.main)
    lines = [line for line in listed if f" {SITE_PACKAGES}/isolcpus_dp/" in line]
    assert {line.split()[0] for line in lines} == {"drwxr-xr-x", "-rw-r--r--"}
    files = {line.split()[-1][len(SITE_PACKAGES) + 1 :] for line in lines}
    archived = packages.distribution.run("tar", "--list", "--file", packages.archive)
    names = [name.partition("/")[2] for name in archived.splitlines()]
    modules = {name for name in names if re.match(r"isolcpus_dp/.*\.py$", name)}
    assert len(modules) > 40
    for interface in ("deviceplugin", "nri", "podresources", "ttrpc"):
        modules |= {f"isolcpus_dp/api/{interface}_pb2{end}.py" for end in ("", "_grpc")}
    tag = f"cpython-{python_version().replace('.', '')}"
    compiled = {re.sub(r"([^/]+)\.py$", rf"__pycache__/\1.{tag}.pyc", module) for module in modules}
    assert {name for name in files if "." in Path(name).name} == {
        "isolcpus_dp/py.typed",
        *modules,
        *compiled,
    }


def test_main_package_requires_packages_of_the_distribution(packages: Packages) -> None:
    requires = set(packages.rpm("-qp", "--requires", packages.main))
    assert {
        "/bin/sh",
        "/usr/bin/python3",
        f"python(abi) = {python_version()}",
        "python3-grpcio",
        "python3-protobuf",
        "python3-pyudev",
        "python3-systemd",
        "systemd",
    } <= requires
    # EPEL 10 does not have it.
    assert not [name for name in requires if "sdnotify" in name]
    assert packages.rpm("-qp", "--recommends", packages.main) == [
        "python3-pyyaml",
        "python3-rich >= 12.2",
        "python3-sdnotify",
    ]
    assert packages.rpm("-qp", "--suggests", packages.main) == [
        "python3-prometheus_client",
        "realtime-tests",
    ]
    pin_requires = packages.rpm("-qp", "--requires", packages.pin)
    assert f"isolcpus-dp = {packages.version}-1" in pin_requires


@pytest.mark.parametrize("distribution", ["rhel 9", "rhel 10", "fedora 43"])
def test_spec_requires_the_build_tools_of_a_distribution(
    packages: Packages, distribution: str
) -> None:
    requires = packages.distribution.run(
        "rpmspec", "--query", "--buildrequires", "--define", distribution, SPEC
    )
    assert requires.splitlines() == [
        "grpc-plugins",
        "protobuf-compiler",
        "pyproject-rpm-macros",
        "python3-devel",
        "systemd-rpm-macros",
    ]


# Replace the macros of EL and Fedora, and show their arguments.
STAND_INS = """\
%pyproject_buildrequires(x:) echo 'needs(build)' %{-x:'needs(%{-x*})'}
%pyproject_wheel() make-wheel
%pyproject_install() install-wheel
%systemd_requires Requires(post): systemd-of-the-distribution
%systemd_post() post %*
%systemd_preun() preun %*
%systemd_postun_with_restart() postun %*
"""
INSTALLING = """\
install-wheel
install -d ROOT/etc/isolcpus-dp/isolcpus-dp.conf.d
install -D -p -m 644 -t ROOT/etc/isolcpus-dp packaging/isolcpus-dp.conf
install -D -p -m 644 -t ROOT/usr/lib/systemd/system systemd/*.service systemd/*.path
install -D -p -m 644 -t ROOT/usr/lib/systemd/system/isolcpus-dp.service.d \
systemd/isolcpus-dp.service.d/kubelet-order.conf
install -D -p -m 755 -t ROOT/usr/lib/systemd/system-generators systemd/isolcpus-dp-generator
install -D -p -m 644 -t ROOT/usr/lib/systemd/catalog packaging/isolcpus-dp.catalog
install -D -p -m 644 -t ROOT/usr/share/starlingx/pmon.d packaging/pmon.d/isolcpus-dp.conf
install -D -p -m 644 packaging/isolcpus-dp.bash \
ROOT/usr/share/bash-completion/completions/isolcpus-dp
install -D -p -m 644 -t ROOT/usr/share/man/man8 docs/isolcpus-dp.8
install -D -p -m 644 -t ROOT/usr/share/man/man5 docs/isolcpus-dp.conf.5"""
AFTER_INSTALLATION = """\
journalctl --update-catalog >/dev/null 2>&1 || :
post isolcpus-dp.service isolcpus-dp-kubelet.path"""
AFTER_REMOVAL = """\
# systemd's own trigger does not run when a catalogue is removed.
journalctl --update-catalog >/dev/null 2>&1 || :
postun isolcpus-dp.service isolcpus-dp-kubelet.path
if [ $1 -eq 0 ]; then
    # A killed service leaves its sockets.
    find /var/lib/kubelet/device-plugins/.isolcpus-dp -delete 2>/dev/null || :
    # The service creates the kubelet's directories if no kubelet has created them yet.
    rmdir --ignore-fail-on-non-empty /var/lib/kubelet/device-plugins /var/lib/kubelet \\
        2>/dev/null || :
fi"""


@pytest.fixture
def macros(tmp_path: Path) -> Path:
    file = tmp_path / "macros"
    file.write_text(STAND_INS)
    return file


@pytest.mark.parametrize("distribution", ["rhel 9", "fedora 43"])
def test_spec_uses_the_macros_of_a_distribution(
    packages: Packages, macros: Path, distribution: str
) -> None:
    expanded = packages.distribution.run(
        *("rpmspec", "-P", "--load", macros, "--define", distribution, SPEC)
    )
    assert expanded.count("\nRequires(post): systemd-of-the-distribution\n") == 2
    expanded = re.sub(r"\S+/BUILDROOT/[^/]+/", "ROOT/", expanded)
    headings = "build|install|check|post|preun|postun|post pin|preun pin|postun pin|files"
    parts = re.split(rf"^%({headings})\n", expanded, flags=re.MULTILINE)
    section = {heading: text.strip() for heading, text in zip(parts[1::2], parts[2::2])}
    assert section["build"] == "make-wheel"
    assert section["install"] == INSTALLING
    assert section["post"] == AFTER_INSTALLATION
    assert section["preun"] == "preun isolcpus-dp.service isolcpus-dp-kubelet.path"
    assert section["postun"] == AFTER_REMOVAL
    assert section["post pin"] == "post isolcpus-dp-pin.service"
    assert section["preun pin"] == "preun isolcpus-dp-pin.service"
    assert section["postun pin"] == "postun isolcpus-dp-pin.service"


@pytest.mark.parametrize(
    ("options", "needs"), [((), ["build", "test"]), (("--without=tests",), ["build"])]
)
def test_build_requires_the_test_tools_only_with_tests(
    packages: Packages, macros: Path, tmp_path: Path, options: tuple[str, ...], needs: list[str]
) -> None:
    # rpmbuild ends with exit status 11, and writes a package with the build requirements.
    packages.distribution.run(
        *("sh", "-c", '"$@"; test $? -eq 11', "sh"),
        *("rpmbuild", "-tr", "--nodeps", "--load", macros, "--define", "rhel 9"),
        *("--define", f"_topdir {tmp_path}"),
        *options,
        packages.archive,
    )
    [written] = (tmp_path / "SRPMS").iterdir()
    assert written.name == f"isolcpus-dp-{packages.version}-1.buildreqs.nosrc.rpm"
    requires = packages.rpm("-qp", "--requires", written)
    assert [one for one in requires if "needs" in one] == [f"needs({one})" for one in needs]
    assert "grpc-plugins" in requires


def test_rpmlint_reports_nothing(packages: Packages) -> None:
    report = packages.distribution.run(
        *("rpmlint", "--strict", "--config", SPEC.with_name("rpmlint.toml")),
        *("--rpmlintrc", SPEC.with_name("isolcpus-dp.rpmlintrc")),
        *(SPEC, packages.source, packages.main, packages.pin),
    )
    assert "3 packages and 1 specfiles checked; 0 errors, 0 warnings" in report


def test_builds_are_reproducible(packages: Packages, tmp_path: Path) -> None:
    later = Path(shutil.copy(packages.archive, tmp_path))
    directory = tmp_path / "rpm"
    first, second = (
        {
            path.name: path.read_bytes()
            for path in packages.distribution.build(later, directory, "--without=tests")
        }
        for _ in range(2)
    )
    assert len(first) == 3
    assert first == second


def test_source_package_builds_the_same_files(packages: Packages, tmp_path: Path) -> None:
    packages.distribution.run(
        *("rpmbuild", "--rebuild", "--quiet", "--without=tests"),
        *("--define", f"_topdir {tmp_path}"),
        *("--define", "__brp_compress /bin/bash /usr/lib/rpm/brp-compress /usr"),
        packages.source,
    )
    query = ("-qp", "--qf", "[%{FILENAMES} %{FILEDIGESTS}\n]")
    for package in (packages.main, packages.pin):
        again = tmp_path / "RPMS/noarch" / package.name
        assert packages.rpm(*query, again) == packages.rpm(*query, package)


def test_presets_of_the_distribution_enable_units(host: Host) -> None:
    output = host.dnf("install", *BOTH)
    assert has_no_warning(output), output
    assert host.calls() == [CATALOGUE, PRESET, PRESET_PIN]
    assert host.rpm("-V", *BOTH) == ""


def test_main_package_installs_without_the_other(host: Host) -> None:
    output = host.dnf("install", "isolcpus-dp")
    assert has_no_warning(output), output
    assert host.calls() == [CATALOGUE, PRESET]
    assert host.rpm("-qa", "isolcpus-dp*").split() == [
        host.rpm("-q", "isolcpus-dp").strip(),
    ]
    assert not (host.root / "usr/lib/systemd/system/isolcpus-dp-pin.service").exists()


def test_pin_package_installs_the_main_package_of_its_version(
    host: Host, packages: Packages
) -> None:
    host.dnf("install", "isolcpus-dp-pin")
    assert host.rpm("-q", "--qf", "%{VERSION} ", *BOTH) == f"{packages.version} " * 2


def test_upgrade_restarts_running_daemons(host: Host, packages: Packages) -> None:
    host.dnf("install", *PREVIOUS)
    host.boot()
    host.calls()
    output = host.dnf("upgrade", *BOTH)
    assert has_no_warning(output), output
    assert host.rpm("-q", "--qf", "%{VERSION} ", *BOTH) == f"{packages.version} " * 2
    # No unit is enabled or disabled.
    assert host.calls() == [
        CATALOGUE,
        *(RELOAD, RESTART_PIN),
        *(CATALOGUE, RELOAD, RESTART),
    ]
    assert host.rpm("-V", *BOTH) == ""


def test_upgrade_without_systemd_only_updates_the_catalogue(host: Host) -> None:
    host.dnf("install", *PREVIOUS)
    host.calls()
    output = host.dnf("upgrade")
    assert has_no_warning(output), output
    assert host.calls() == [CATALOGUE, CATALOGUE]


def test_changed_configuration_is_kept_by_an_upgrade(host: Host) -> None:
    host.dnf("install", *PREVIOUS)
    file = host.root / CONFIGURATION
    file.write_text("[Plugin]\nGranularity=core\n")
    drop_in = host.root / "etc/isolcpus-dp/isolcpus-dp.conf.d/50-cpus.conf"
    drop_in.write_text("[Plugin]\nCPUs=2-3\n")
    output = host.dnf("upgrade")
    assert f"/{CONFIGURATION} created as /{CONFIGURATION}.rpmnew" in output
    assert file.read_text() == "[Plugin]\nGranularity=core\n"
    assert drop_in.read_text() == "[Plugin]\nCPUs=2-3\n"
    sample = (ROOT / "packaging/isolcpus-dp.conf").read_text()
    assert file.with_name("isolcpus-dp.conf.rpmnew").read_text() == sample


def test_unchanged_configuration_is_replaced_by_an_upgrade(host: Host) -> None:
    host.dnf("install", *PREVIOUS)
    file = host.root / CONFIGURATION
    sample = (ROOT / "packaging/isolcpus-dp.conf").read_text()
    assert file.read_text() == sample + "# Of the previous version.\n"
    host.dnf("upgrade")
    assert file.read_text() == sample
    assert [path.name for path in file.parent.iterdir() if path.is_file()] == [file.name]


def test_downgrade_installs_the_previous_version(host: Host) -> None:
    host.dnf("install", *PREVIOUS)
    files = host.files()
    host.dnf("upgrade")
    host.boot()
    host.calls()
    output = host.dnf("downgrade", *PREVIOUS)
    assert has_no_warning(output), output
    assert host.rpm("-q", "--qf", "%{VERSION} ", *BOTH) == "0.0.1 0.0.1 "
    assert host.files() - {"/run/systemd", "/run/systemd/system"} == files
    calls = host.calls()
    assert (RESTART in calls, RESTART_PIN in calls) == (True, True)
    assert not [call for call in calls if "preset" in call or "disable" in call]


def test_reinstallation_restores_files_and_keeps_configuration(host: Host) -> None:
    host.dnf("install", *BOTH)
    files = host.files()
    (host.root / CONFIGURATION).write_text("[Plugin]\nMixed=yes\n")
    shutil.rmtree(host.root / SITE_PACKAGES[1:] / "isolcpus_dp")
    output = host.dnf("reinstall", *BOTH)
    assert has_no_warning(output), output
    assert host.files() == files
    assert (host.root / CONFIGURATION).read_text() == "[Plugin]\nMixed=yes\n"


def test_removal_stops_the_daemons_and_removes_all_files(host: Host) -> None:
    files = host.files()
    host.boot()
    host.dnf("install", *BOTH)
    host.calls()
    output = host.dnf("remove", *BOTH)
    assert has_no_warning(output), output
    assert host.files() - {"/run/systemd", "/run/systemd/system"} == files
    assert host.calls() == [DISABLE_PIN, RELOAD, DISABLE, CATALOGUE, RELOAD]


def test_removal_keeps_files_of_the_administrator(host: Host) -> None:
    files = host.files()
    host.dnf("install", *BOTH)
    (host.root / CONFIGURATION).write_text("[Plugin]\nMixed=yes\n")
    (host.root / "etc/isolcpus-dp/isolcpus-dp.conf.d/50-cpus.conf").touch()
    host.dnf("remove", *BOTH)
    assert host.files() - files == {
        "/etc/isolcpus-dp",
        "/etc/isolcpus-dp/isolcpus-dp.conf.d",
        "/etc/isolcpus-dp/isolcpus-dp.conf.d/50-cpus.conf",
        "/etc/isolcpus-dp/isolcpus-dp.conf.rpmsave",
    }
    saved = host.root / "etc/isolcpus-dp/isolcpus-dp.conf.rpmsave"
    assert saved.read_text() == "[Plugin]\nMixed=yes\n"


def test_removal_removes_empty_kubelet_directories(host: Host) -> None:
    files = host.files()
    host.dnf("install", *PREVIOUS)
    (host.root / DEVICE_PLUGINS).mkdir(parents=True)  # as the service does
    host.dnf("upgrade", *BOTH)
    assert (host.root / DEVICE_PLUGINS).exists()
    output = host.dnf("remove", *BOTH)
    assert has_no_warning(output), output
    assert host.files() == files


@pytest.mark.parametrize("own", ["kubelet_internal_checkpoint", "../config.yaml"])
def test_removal_keeps_directories_with_files_of_the_kubelet(host: Host, own: str) -> None:
    host.dnf("install", *BOTH)
    (host.root / DEVICE_PLUGINS).mkdir(parents=True)
    (host.root / DEVICE_PLUGINS / own).touch()
    output = host.dnf("remove", *BOTH)
    assert has_no_warning(output), output
    # The kubelet recreates an empty device plugin directory.
    assert (host.root / DEVICE_PLUGINS).exists() == (own == "kubelet_internal_checkpoint")
    assert (host.root / DEVICE_PLUGINS.parent).exists()


def test_removal_of_pin_keeps_the_main_package(host: Host) -> None:
    host.dnf("install", *BOTH)
    host.calls()
    host.dnf("remove", "isolcpus-dp-pin")
    assert host.calls() == [DISABLE_PIN]
    assert host.rpm("-V", "isolcpus-dp") == ""


def environment(host: Host) -> dict[str, str]:
    """Runs what is installed on the host with Debian's Python and gRPC."""
    return {
        "PATH": PATH,
        "PYTHONPATH": f"{host.root}{SITE_PACKAGES}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_installed_program_prints_help_and_version(host: Host) -> None:
    host.dnf("install", "isolcpus-dp")
    program = host.root / "usr/bin/isolcpus-dp"
    assert program.read_text().startswith(f"#!{PYTHON} -s\n")

    def output(option: str) -> str:
        ended = subprocess.run(
            [program, option], env=environment(host), cwd="/", capture_output=True, text=True
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    assert output("--help").startswith("usage: isolcpus-dp ")
    assert output("--version") == f"isolcpus-dp {__version__}\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path, whose path is too long for a unix socket.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


async def test_installed_daemon_registers_its_devices(host: Host, directory: Path) -> None:
    host.dnf("install", "isolcpus-dp")
    unit = (host.root / "usr/lib/systemd/system/isolcpus-dp.service").read_text()
    [start] = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    machine = MadeUpMachine(directory / "sys", regular(2, 4, 2), (1, 5, 9, 13))
    kubelet_dir = directory / "kubelet"
    paths.device_plugins(kubelet_dir).mkdir(parents=True)
    options: list[str | Path] = ["--config", host.root / CONFIGURATION]
    options += ["--sysfs", machine.root, "--kubelet-dir", kubelet_dir]
    # Started in a directory without isolcpus_dp. Python prints the paths of the modules it loads.
    daemon = Supervisor(
        ["env", "--chdir=/", *start.split(), *options],
        directory,
        {**environment(host), "PYTHONVERBOSE": "1"},
    )
    simulated = Kubelet(kubelet_dir, directory / "containers")
    await simulated.start()
    try:
        async with daemon.running():
            await simulated.until(lambda: simulated.allocatable(RESOURCE) == 4)
            await daemon.worker(lambda worker: worker.registered is not None)
            assert simulated.node_status()["devices"] == {
                RESOURCE: {
                    "1": ["Healthy", 0],
                    "5": ["Healthy", 1],
                    "9": ["Healthy", 0],
                    "13": ["Healthy", 1],
                }
            }
    finally:
        await simulated.stop()
    assert [run.exit_status for run in daemon.runs] == [0]
    loaded = re.findall(r"^# code object from '(.*isolcpus_dp/.*)'$", daemon.log.read_text(), re.M)
    assert len(loaded) > 10
    compiled = f"{host.root}{SITE_PACKAGES}/isolcpus_dp/"
    assert [path for path in loaded if not path.startswith(compiled)] == []


def test_rpm_state_of_the_host_is_unchanged(packages: Packages, bare: Host) -> None:
    assert bare.rpm("-q", "systemd").startswith("systemd-1-1")
    assert host_state() == packages.host_state
