"""Builds disk images with mmdebstrap and caches them, one for each recipe.

An image never changes: the changes that a test makes are written to a snapshot (see `qemu`).
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

from . import boot_loader
from .disk import make_disk
from .recipe import Recipe

HERE = Path(__file__).parent
AGENT = HERE / "agent.py"
ROOT = HERE / "root"
APT = Path("/etc/apt")
DISK_SIZE = 4 << 30

# In memory, because a root has tens of thousands of files and is removed soon.
MEMORY = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None

# Periodic maintenance, logins and file systems that the tests do not need, and that delay the boot.
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
class Image:
    """The files that qemu boots from."""

    disk: Path
    kernel: Path  # or a boot loader, which finds kernel and initrd on the disk
    initrd: Path | None


def cached(recipe: Recipe) -> Image:
    """Returns the image of the recipe. Builds it if it is not cached, and removes older ones.

    Raises SystemExit with a message if the image cannot be built.
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
    initrd = entry / "initrd"
    return Image(entry / "disk", entry / "kernel", initrd if initrd.exists() else None)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Locks the directory, so that a second test run waits for the image."""
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
    """Returns a hash of all inputs of the image except the state of the archive."""
    digest = hashlib.sha256(repr(recipe).encode())
    code = [HERE / name for name in ("image.py", "disk.py", "agent.py", "boot_loader.py")]
    for file in (*code, *sorted(ROOT.rglob("*"))):
        if file.is_file():
            digest.update(f"\0{file.relative_to(HERE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def build(recipe: Recipe, scratch: Path) -> None:
    """Builds the cache entry as `scratch/image`. Other files in `scratch` can be removed."""
    require_tools()
    image = scratch / "image"
    image.mkdir()
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        root = Path(directory) / "root"
        install(recipe, root, scratch)
        if recipe.boot_loader:
            boot_loader.install(root, image / "kernel")
        else:
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
    """Creates a bootable root directory."""
    options = scratch / "apt.conf"
    options.write_text(acquire_options())
    mmdebstrap(
        f"--include={','.join(recipe.packages)}",
        f"--aptopt={options}",
        *(f"--aptopt={option}" for option in recipe.apt_options),
        # Before the packages, because installing the kernel creates the initrd.
        f"--setup-hook=sync-in {ROOT} /",
        *pins(recipe, scratch),
        '--customize-hook=rm "$1"/etc/resolv.conf',
        f"--customize-hook=upload {AGENT} /usr/local/sbin/vm-agent",
        '--customize-hook=chmod 755 "$1"/usr/local/sbin/vm-agent',
        '--customize-hook=chroot "$1" systemctl enable vm-agent.service',
        f'--customize-hook=chroot "$1" systemctl mask {" ".join(MASKED)}',
        suite=recipe.suite,
        target=root,
        sources=[source for suite in suites(recipe) for source in apt_sources(suite, scratch)],
    )


def suites(recipe: Recipe) -> list[str]:
    return [recipe.suite, *([recipe.newer[0]] if recipe.newer else [])]


def pins(recipe: Recipe, scratch: Path) -> list[str]:
    """The option with which only the named packages come from the newer suite."""
    if not recipe.newer:
        return []
    suite, packages = recipe.newer
    preferences = scratch / "preferences"
    # The pattern also matches its updates: trixie, trixie-updates, trixie-security.
    preferences.write_text(
        f"Package: *\nPin: release n={suite}*\nPin-Priority: 100\n\n"
        f"Package: {' '.join(packages)}\nPin: release n={suite}*\nPin-Priority: 990\n"
    )
    return [f"--setup-hook=upload {preferences} /etc/apt/preferences"]


def mmdebstrap(
    *options: str,
    suite: str,
    target: Path,
    sources: Sequence[Path],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs mmdebstrap. Retries it, because a mirror is inconsistent while it is updated."""
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
    """Copies the host's APT sources, with `suite` in place of the host's release.

    Skips sources that do not name the release, such as a vendor's.
    """
    release = host_release()
    copies = []
    for source in (APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))):
        if source.suffix not in (".list", ".sources") or not source.exists():
            continue
        text = source.read_text()
        if release in text:
            copy = scratch / f"{suite}-{source.name}"
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
    """Returns the host's APT settings for downloads, such as a proxy."""
    dump = subprocess.run(
        ["apt-config", "dump", "Acquire"], stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    return dump.stdout
