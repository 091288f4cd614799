"""Disk images to boot: a recipe is built once with mmdebstrap and then found in the cache.

An image never changes: what a test installs or breaks goes to a snapshot (see `qemu`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .disk import make_disk

HERE = Path(__file__).parent
AGENT = HERE / "agent.py"
ROOT = HERE / "root"
APT = Path("/etc/apt")
DISK_SIZE = 4 << 30

# A root has tens of thousands of files, which are soon gone again: no disk need see them.
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None

# Chores of a machine that lives for months, logins and file systems that nobody uses: they only
# delay the boot.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
)


@dataclass(frozen=True)
class Recipe:
    """A Debian suite and the packages in it; everything else is the same for every image."""

    name: str
    suite: str
    packages: tuple[str, ...]
    apt_options: tuple[str, ...] = ()  # in the words of apt.conf


@dataclass(frozen=True)
class Image:
    """What qemu needs to boot."""

    disk: Path
    kernel: Path
    initrd: Path


BOOKWORM = Recipe(
    name="bookworm",
    suite="bookworm",
    packages=(
        "systemd-sysv",
        "dbus",
        "udev",
        "kmod",
        "linux-image-cloud-amd64",
        "procps",
        "python3",
        "python3-grpcio",
        "python3-prometheus-client",
        "python3-protobuf",
        "python3-pyudev",
        "python3-rich",
        "python3-sdnotify",
        "python3-systemd",
        "python3-yaml",
        "strace",
    ),
)

RUNTIME = ("containerd", "runc")

TRIXIE = Recipe(name="trixie", suite="trixie", packages=(*BOOKWORM.packages, *RUNTIME))

FORKY = Recipe(
    name="forky",
    suite="forky",
    packages=(
        *BOOKWORM.packages,
        *RUNTIME,
        # No longer what a kernel brings along; everything in root/ is made for it.
        "initramfs-tools",
    ),
    # A testing release moves on: a mirror's copy of it that stands still is soon out of date.
    apt_options=('Acquire::Check-Valid-Until "false"',),
)


def cached(recipe: Recipe) -> Image:
    """The recipe's image, built if there is none yet in place of an older one of that name.

    Raises SystemExit with a sentence where building is not possible.
    """
    images = cache_directory() / recipe.name
    images.mkdir(parents=True, exist_ok=True)
    entry = images / key(recipe)
    with locked(images):
        if not entry.exists():
            for outdated in images.iterdir():
                shutil.rmtree(outdated)
            with tempfile.TemporaryDirectory(dir=images) as scratch:
                build(recipe, Path(scratch))
                (Path(scratch) / "image").rename(entry)
    return Image(entry / "disk", entry / "kernel", entry / "initrd")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Makes a second test run wait for the image instead of building it as well."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "isolcpus-dp" / "vm"


def key(recipe: Recipe) -> str:
    """Changes with everything that goes into the image except the archive's own state."""
    digest = hashlib.sha256(repr(recipe).encode())
    for file in (Path(__file__), HERE / "disk.py", AGENT, *sorted(ROOT.rglob("*"))):
        if file.is_file():
            digest.update(f"\0{file.relative_to(HERE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def build(recipe: Recipe, scratch: Path) -> None:
    """Makes the complete entry as `scratch/image`; whatever else it leaves there is waste."""
    require_tools()
    image = scratch / "image"
    image.mkdir()
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder) / "root"
        install(recipe, root, scratch)
        for name, link in (("kernel", "vmlinuz"), ("initrd", "initrd.img")):
            shutil.copy(root / (root / link).readlink(), image / name)
        make_disk(image / "disk", root, DISK_SIZE)


def require_tools() -> None:
    if os.geteuid() != 0:
        raise SystemExit("building a VM image needs root: its files belong to many users")
    for tool, package in (("mmdebstrap", "mmdebstrap"), ("mkfs.ext4", "e2fsprogs")):
        if not shutil.which(tool):
            raise SystemExit(f"building a VM image needs {tool}: apt install {package}")


def install(recipe: Recipe, root: Path, scratch: Path) -> None:
    """A bootable root directory."""
    options = scratch / "apt.conf"
    options.write_text(acquire_options())
    mmdebstrap(
        f"--include={','.join(recipe.packages)}",
        f"--aptopt={options}",
        *(f"--aptopt={option}" for option in recipe.apt_options),
        # Before the packages: the kernel's own installation makes the initrd.
        f"--setup-hook=sync-in {ROOT} /",
        '--customize-hook=rm "$1"/etc/resolv.conf',
        f"--customize-hook=upload {AGENT} /usr/local/sbin/vm-agent",
        '--customize-hook=chmod 755 "$1"/usr/local/sbin/vm-agent',
        '--customize-hook=chroot "$1" systemctl enable vm-agent.service',
        f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}',
        suite=recipe.suite,
        target=root,
        sources=apt_sources(recipe.suite, scratch),
    )


def mmdebstrap(
    *options: str,
    suite: str,
    target: Path,
    sources: Sequence[Path],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Makes a Debian. A mirror that is being updated fits together again some time later."""
    command: list[str | Path] = ["mmdebstrap", "--variant=minbase", *options]
    command += [suite, target, *sources]
    for pause in (20, 60):
        if subprocess.run(command, env=environment).returncode == 0:
            return
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        time.sleep(pause)
    subprocess.run(command, env=environment, check=True)


def apt_sources(suite: str, scratch: Path) -> list[Path]:
    """Copies of the host's own APT sources that name `suite` where those name the host's release.

    One that does not name the release (a vendor's) says nothing about another and is left out.
    """
    release = host_release()
    copies = []
    for source in (APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))):
        if source.suffix not in (".list", ".sources") or not source.exists():
            continue
        text = source.read_text()
        if release in text:
            copy = scratch / source.name
            copy.write_text(text.replace(release, suite))
            copies.append(copy)
    return copies


def host_release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise SystemExit("building a VM image needs a Debian host: its APT sources are the image's")


def acquire_options() -> str:
    """How the host reaches its archive: a proxy, or patience with a mirror that stands still."""
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    return dump.stdout
