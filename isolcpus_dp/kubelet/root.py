"""The kubelet's root directory: what --root-dir moves, which is all but `device-plugins/`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isolcpus_dp.host import daemons, sockets
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import paths

if TYPE_CHECKING:
    from isolcpus_dp.kubelet.rancher import Places

_PROC = Path("/proc")


def find(
    kubelet_dir: Path,
    configured: Path | None,
    proc: Path = _PROC,
    places: Places | None = None,
) -> Path:
    """The root directory of the kubelet whose `device-plugins/` is in `kubelet_dir`.

    It is the configured one, or else that directory if it is not the usual one, or else what the
    arguments of the running kubelet say, or else the usual one.
    """
    return given(kubelet_dir, configured) or _of_running(kubelet_dir, proc, places) or kubelet_dir


def given(kubelet_dir: Path, configured: Path | None) -> Path | None:
    """The root directory that the administrator names; None without one."""
    return configured or (kubelet_dir if kubelet_dir != paths.DEFAULT_DIRECTORY else None)


def _of_running(kubelet_dir: Path, proc: Path, places: Places | None) -> Path | None:
    """The --root-dir of the kubelet that listens for device plugins; None if it is unknown.

    Only root can put a socket there, so this process is a kubelet, whatever its name is.
    """
    pid = sockets.listener(paths.registration_socket(kubelet_dir))
    if pid is None:
        return None
    # Takes 10 ms, and is not needed if the root directory is given.
    from isolcpus_dp.kubelet import rancher, running

    try:
        if not daemons.is_trusted(proc, pid):
            return None
        root = running.of(proc, pid, places or rancher.USUAL).flags.get("root-dir")
    except Unseen:
        return None
    return Path(root) if root else None
