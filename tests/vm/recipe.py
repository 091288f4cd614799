"""The recipes of the disk images: a Debian suite, and what is installed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import boot_loader


@dataclass(frozen=True)
class Recipe:
    """A Debian suite and the packages to install; everything else is the same for all images."""

    name: str
    suite: str
    packages: tuple[str, ...]
    apt_options: tuple[str, ...] = ()  # lines of apt.conf
    # Some packages of another suite: its name and theirs.
    newer: tuple[str, tuple[str, ...]] | None = None
    # Whether GRUB boots it, and not qemu: the kernel's arguments are then in its own configuration.
    boot_loader: bool = False


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
        # The kernel package no longer depends on it; the files in root/ configure it.
        "initramfs-tools",
    ),
    # The release file of a testing suite expires soon, so that of an outdated mirror is invalid.
    apt_options=('Acquire::Check-Valid-Until "false"',),
)

# Hosts that `plan` configures, and that the pages describe. Debian 12 itself has containerd 1.6,
# which has no NRI.
BOOKWORM_BARE = replace(
    BOOKWORM,
    name="bookworm-bare",
    packages=(*BOOKWORM.packages, *RUNTIME, *boot_loader.PACKAGES),
    newer=("trixie", ("containerd",)),
    boot_loader=True,
)

TRIXIE_BARE = replace(
    TRIXIE,
    name="trixie-bare",
    packages=(*TRIXIE.packages, *boot_loader.PACKAGES, "tuned", "rt-tests"),
    boot_loader=True,
)


def measuring(name: str, kernel: str) -> Recipe:
    """Debian 13 with another kernel than the one for virtual machines, and oslat."""
    usual = (one for one in BOOKWORM.packages if not one.startswith("linux-image-"))
    return Recipe(name=name, suite="trixie", packages=(*usual, kernel, "rt-tests"))


STOCK = measuring("trixie-stock", "linux-image-amd64")
REALTIME = measuring("trixie-rt", "linux-image-rt-amd64")
