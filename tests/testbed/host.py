"""A simulated host: a machine, the kubelet's directory, the runtime's socket, and command lines.

All its files are below one directory. Nothing here starts a process.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from isolcpus_dp.kubelet import paths
from isolcpus_dp.simulator.machine import MadeUpMachine, Place

# The default name of the resource.
RESOURCE = "windriver.com/isolcpus"

_MAIN = "import sys; from isolcpus_dp import cli; sys.exit(cli.main(sys.argv[1:]))"


class Host:
    """A simulated host below `directory`; its path must be short because it contains sockets."""

    def __init__(self, directory: Path, places: Iterable[Place], isolated: Iterable[int]) -> None:
        self.directory = directory
        self.machine = MadeUpMachine(directory / "sys", places, isolated)
        self.kubelet_dir = directory / "kubelet"
        self.device_plugins = paths.device_plugins(self.kubelet_dir)
        self.device_plugins.mkdir(parents=True)
        self.kubelet_socket = self.device_plugins / "kubelet.sock"
        self.endpoint = self.device_plugins / "windriver.com-isolcpus.sock"
        self.containers = directory / "containers"  # for the simulator's Kubelet
        self.nri_socket = directory / "nri" / "nri.sock"

    @property
    def log(self) -> str:
        """The log of all processes of the daemon so far."""
        log = self.directory / "log"
        return log.read_text() if log.exists() else ""

    def configure(self, configuration: str) -> Path:
        """Writes the configuration file, and returns its path."""
        file = self.directory / "isolcpus-dp.conf"
        file.write_text(configuration)
        return file

    def cgroup_file(self, name: str, text: str) -> Path:
        """Writes a file below /sys/fs/cgroup, and returns its path."""
        file = self.machine.root / "fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def command(self, subcommand: str, *more: str | Path, prelude: str = "") -> list[str]:
        """The command line of a subcommand on this host.

        `prelude` is Python code that its process runs first.
        """
        start = ["-c", f"{prelude}\n{_MAIN}"] if prelude else ["-m", "isolcpus_dp"]
        options: list[str | Path] = ["--sysfs", self.machine.root]
        if subcommand == "pin":
            options += ["--nri-socket", self.nri_socket]
        else:
            options += ["--kubelet-dir", self.kubelet_dir]
        return [sys.executable, *start, subcommand, *map(str, (*options, *more))]


@contextlib.contextmanager
def made_up_host(places: Iterable[Place], isolated: Iterable[int]) -> Iterator[Host]:
    """A host in a temporary directory, which is removed at the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        yield Host(Path(name), places, isolated)
