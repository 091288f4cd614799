"""GRUB for an image: qemu loads it as a kernel, and it boots what the disk's grub.cfg says.

So a guest can change its kernel command line as a host does: update-grub, then a reboot. GRUB is
not installed into a boot sector, because the disk is one file system without partitions.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

# Packages of the image. The second one has update-grub.
PACKAGES = ("grub-pc-bin", "grub2-common")

# Of every guest, however it is booted; `qemu` says why.
KERNEL_ARGUMENTS = "console=ttyS0 norandmaps mitigations=off tsc=nowatchdog"

# What GRUB needs until it has found its other modules on the disk.
_BUILT_IN = ("biosdisk", "ext2", "normal")

_DEFAULTS = f"""\
GRUB_TIMEOUT=0
GRUB_TERMINAL=console
GRUB_CMDLINE_LINUX="{KERNEL_ARGUMENTS}"
"""

# For the first boot. update-grub needs the disk, which does not exist while the image is built.
_FIRST = f"""\
set timeout=0
menuentry guest {{
    linux /vmlinuz root=/dev/vda ro {KERNEL_ARGUMENTS}
    initrd /initrd.img
}}
"""


def install(root: Path, kernel: Path) -> None:
    """Sets up GRUB in a root directory, and writes to `kernel` what qemu has to load."""
    modules = root / "usr/lib/grub/i386-pc"
    (root / "boot/grub").mkdir(exist_ok=True)
    subprocess.run(["cp", "-r", modules, root / "boot/grub"], check=True)
    (root / "boot/grub/grub.cfg").write_text(_FIRST)
    (root / "etc/default/grub").write_text(_DEFAULTS)
    core = root / "boot/grub/core.img"
    subprocess.run(
        [
            *("chroot", root, "grub-mkimage", "--format=i386-pc", "--prefix=(hd0)/boot/grub"),
            *("--output=/boot/grub/core.img", *_BUILT_IN),
        ],
        check=True,
    )
    # A header that makes it look like a kernel.
    kernel.write_bytes((modules / "lnxboot.img").read_bytes() + core.read_bytes())
