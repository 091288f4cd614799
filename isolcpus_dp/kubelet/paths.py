"""The kubelet's files and sockets below its directory (/var/lib/kubelet)."""

from __future__ import annotations

from pathlib import Path

DEFAULT_DIRECTORY = Path("/var/lib/kubelet")


def device_plugins(kubelet_dir: Path) -> Path:
    """The directory of the sockets of the kubelet and its device plugins."""
    return kubelet_dir / "device-plugins"


def registration_socket(kubelet_dir: Path) -> Path:
    """The socket on which the kubelet serves Registration."""
    return device_plugins(kubelet_dir) / "kubelet.sock"


def checkpoint(kubelet_dir: Path) -> Path:
    """The file in which the kubelet stores which container holds which devices."""
    return device_plugins(kubelet_dir) / "kubelet_internal_checkpoint"


def pod_resources_socket(kubelet_dir: Path) -> Path:
    """The socket on which the kubelet serves PodResourcesLister."""
    return kubelet_dir / "pod-resources" / "kubelet.sock"


def pods(kubelet_dir: Path) -> Path:
    """The directory with a subdirectory for each pod that the kubelet knows."""
    return kubelet_dir / "pods"


def configuration(kubelet_dir: Path) -> Path:
    """The kubelet's configuration file, if its command line does not name another one."""
    return kubelet_dir / "config.yaml"


def cpu_manager_state(kubelet_dir: Path) -> Path:
    """The file in which the kubelet's CPU manager stores its policy and CPUs."""
    return kubelet_dir / "cpu_manager_state"
