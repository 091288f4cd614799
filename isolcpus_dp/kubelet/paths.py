"""The kubelet's files and sockets in its two directories, usually both /var/lib/kubelet.

The one that has `device-plugins/` is a constant in the kubelet; its root directory has all else.
"""

from __future__ import annotations

import os
from pathlib import Path

from isolcpus_dp.config import ConfigError

# sun_path of unix(7), less its final zero byte.
_LONGEST_SOCKET_PATH = 107

DEFAULT_DIRECTORY = Path("/var/lib/kubelet")


def device_plugins(kubelet_dir: Path) -> Path:
    """The directory of the sockets of the kubelet and its device plugins."""
    return kubelet_dir / "device-plugins"


def registration_socket(kubelet_dir: Path) -> Path:
    """The socket on which the kubelet serves Registration."""
    return device_plugins(kubelet_dir) / "kubelet.sock"


def endpoint(kubelet_dir: Path, name: str) -> Path:
    """The socket of a plugin. Raises ConfigError if its path is too long for a socket."""
    path = device_plugins(kubelet_dir) / name
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"{path} is longer than the {_LONGEST_SOCKET_PATH} bytes that a socket's"
            " path may have: shorten ResourceName= or --kubelet-dir"
        )
    return path


def own_sockets(directory: Path) -> Path:
    """The directory of the plugin's own sockets, below the one of all device plugins."""
    return directory / ".isolcpus-dp"


def checkpoint(kubelet_dir: Path) -> Path:
    """The file in which the kubelet stores which container holds which devices."""
    return device_plugins(kubelet_dir) / "kubelet_internal_checkpoint"


def pod_resources_socket(root: Path) -> Path:
    """The socket on which the kubelet serves PodResourcesLister."""
    return root / "pod-resources" / "kubelet.sock"


def missing(file: Path) -> str:
    """Why a file in the root directory may be missing, as one sentence."""
    question = f"{file} does not exist: is the kubelet running?"
    if DEFAULT_DIRECTORY not in file.parents:
        return question
    return (
        f"{question} If its root directory is another one, set RootDirectory= in [Kubelet], see"
        " isolcpus-dp.conf(5)"
    )


def pods(root: Path) -> Path:
    """The directory with a subdirectory for each pod that the kubelet knows."""
    return root / "pods"


def configuration(root: Path) -> Path:
    """The configuration file of a kubelet that kubeadm has set up."""
    return root / "config.yaml"


def cpu_manager_state(root: Path) -> Path:
    """The file in which the kubelet's CPU manager stores its policy and CPUs."""
    return root / "cpu_manager_state"
