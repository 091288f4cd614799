"""Prepares the guest of a soak: both packages, containerd, the kubelet and the author of pods."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path

from tests.packages.build import as_made
from tests.vm import node, pinning, runtime
from tests.vm.guest import Guest

TESTS = Path(__file__).parents[2]
ARCHIVE = "soak.tar"

_MODULES = "/root/soak"
PYTHON = f"PYTHONPATH={_MODULES}:{runtime.FILES} python3 -m tests.vm.soak"

_UNIT = """\
[Unit]
StartLimitIntervalSec=0
[Service]
Environment=PYTHONPATH={path}
ExecStart=/usr/bin/python3 -m tests.vm.soak.{module}
Restart=always
RestartSec=300ms
[Install]
WantedBy=multi-user.target
"""

# The static pods are known to `isolcpus-dp check`.
_KUBELET_CONFIGURATION = "staticPodPath: /etc/kubernetes/manifests\n"

# As docs/runtime.md recommends: otherwise the host's own services may run on the isolated CPUs.
_HOUSEKEEPING = "0-1,4-5"


def files(directory: Path) -> Sequence[Path]:
    """The files for the guest; those that are made are written to `directory`."""
    archive = directory / ARCHIVE
    with tarfile.open(archive, "w") as tar:
        for module in sorted(TESTS.rglob("*.py")):
            tar.add(module, Path("tests") / module.relative_to(TESTS))
    return [*as_made(), *runtime.files(directory), archive]


def install(guest: Guest) -> None:
    """Installs and starts everything but the author."""
    # The kernel patches its code when the first CPU quota is set and when the last one is removed.
    # Emulated CPUs that run this code at that moment can panic. So one quota stays.
    guest.run("mkdir /sys/fs/cgroup/quota && echo '100000 100000' > /sys/fs/cgroup/quota/cpu.max")
    guest.run(f"mkdir -p {_MODULES} && tar -xf {runtime.FILES}/{ARCHIVE} -C {_MODULES}")
    for part in ("init.scope", "system.slice"):
        guest.run(f"systemctl set-property {part} AllowedCPUs={_HOUSEKEEPING}")
    runtime.Runtime(guest).start()
    pinning.install(guest)
    guest.run(
        "mkdir -p /etc/kubernetes/manifests /var/lib/kubelet\n"
        f"printf %s '{_KUBELET_CONFIGURATION}' > /var/lib/kubelet/config.yaml"
    )
    start(guest, "kubelet", "kubelet")
    node.wait_for_devices(guest)


def describe(guest: Guest) -> str:
    """The distribution of the guest, its version of containerd, and its CPUs."""
    return guest.run(
        ". /etc/os-release; set -- $(containerd --version)\n"
        'echo "$PRETTY_NAME, containerd $3, $(nproc) emulated CPUs"'
    ).stdout.strip()


def start(guest: Guest, unit: str, module: str) -> None:
    """Runs a module of the soak as a service; `module` may have arguments."""
    text = _UNIT.format(path=f"{_MODULES}:{runtime.FILES}", module=module)
    guest.run(
        f"cat > /etc/systemd/system/{unit}.service <<'END'\n{text}END\n"
        f"systemctl daemon-reload && systemctl start {unit}"
    )
