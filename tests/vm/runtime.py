"""containerd in a guest, and pods on it as a kubelet would make them (see `pods`)."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .guest import Guest
from .oci import write_archive

HERE = Path(__file__).parent
FILES = "/mnt/files"
CONFIG = "/etc/containerd/config.toml"
IMAGE = "localhost/workload:1"

# What differs from the defaults, per major version: cgroups as a kubelet on systemd has them, the
# image of the pause containers, and in 1.7 NRI. containerd does not wait longer than 2 s for a
# plugin otherwise, and emulated CPUs may be slower.
SETTINGS = {
    1: f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
[plugins."io.containerd.nri.v1.nri"]
disable = false
disable_connections = false
plugin_registration_timeout = "30s"
plugin_request_timeout = "30s"
""",
    2: f"""\
version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = true
[plugins."io.containerd.nri.v1.nri"]
plugin_registration_timeout = "30s"
plugin_request_timeout = "30s"
""",
}

# systemd makes a unit of each of the containers' mounts that it sees: on emulated CPUs that takes
# longer than the containers do.
DROP_IN = Path("/etc/systemd/system/containerd.service.d/quick.conf")
QUICK = """\
[Service]
PrivateMounts=yes
"""

# A container's CPUs: those of all its threads, and what its cgroup says.
LOOK = """\
look() {
    allowed=$(cat /proc/$2/task/*/status | sed -n 's/^Cpus_allowed_list:\\t//p' | sort -u | xargs)
    cpuset=$(cat $3/cpuset.cpus)
    echo "$1 $allowed $cpuset"
}
"""


@dataclass(frozen=True)
class Container:
    """What a pod's author and the kubelet want; `devices` are those the kubelet has chosen."""

    name: str
    devices: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: str = ""  # the static CPU manager's choice, for a container of a Guaranteed pod
    quota: int = 0  # µs in 100 ms; 0 is none
    threads: int = 0  # that compute for ever


@dataclass(frozen=True)
class Pod:
    """Annotations are its author's; `quota` is its cgroup's: µs in 100 ms, 0 is none."""

    name: str
    containers: Sequence[Container]
    annotations: Mapping[str, str] = field(default_factory=dict)
    quota: int = 0


@dataclass(frozen=True)
class Running:
    """A started container; `allowed` and `cpuset` are what it found when it started."""

    name: str
    id: str
    pid: int
    cgroup: str
    allowed: str
    cpuset: str

    @property
    def pod_cgroup(self) -> str:
        return str(Path(self.cgroup).parent)


def files(directory: Path) -> list[Path]:
    """What the guest needs of us, made in `directory`: pods.py, its gRPC stubs, an image."""
    subprocess.run(
        [
            *("protoc", "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin"),
            *(f"--proto_path={HERE}", f"--python_out={directory}"),
            *(f"--grpc_python_out={directory}", "cri.proto"),
        ],
        check=True,
    )
    program, archive = directory / "workload", directory / "image.tar"
    source = HERE / "workload.c"
    subprocess.run(["gcc", "-O2", "-static", "-pthread", "-o", program, source], check=True)
    write_archive(archive, IMAGE, program)
    shutil.copy(HERE / "pods.py", directory)
    return [directory / name for name in ("pods.py", "cri_pb2.py", "cri_pb2_grpc.py", "image.tar")]


class Runtime:
    """The guest's containerd; `start` first."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def start(self) -> None:
        """With our settings and the image, which it looks for only when it starts."""
        version = self._guest.run("containerd --version").stdout.split()[2]
        settings = SETTINGS[int(version.lstrip("v").partition(".")[0])]
        self._guest.run(f"ctr --namespace k8s.io images import {FILES}/image.tar")
        self._guest.run(
            f"mkdir -p {DROP_IN.parent}\n"
            f"cat > {DROP_IN} <<'END'\n{QUICK}END\n"
            f"cat > {CONFIG} <<'END'\n{settings}END\n"
            "systemctl daemon-reload && systemctl restart containerd"
        )

    def run(self, pod: Pod) -> dict[str, Running]:
        """Creates and starts all of its containers; by name."""
        return self._started("run", dumped(pod))

    def run_while_it_dies(self, pid: int, pod: Pod) -> dict[str, Running]:
        """The same, and kills that process while the runtime waits for its answer."""
        return self._started("run-while-it-dies", dumped(pod), str(pid))

    def churn(self, count: int, pod: Pod) -> list[dict[str, Any]]:
        """Creates and removes `count` containers, the pod's own again and again, 8 at a time.

        What each was planned to have; and what it found when it started, if it did.
        """
        printed = self._pods("churn", dumped(pod), str(count), timeout=1200)
        seen: list[dict[str, Any]] = json.loads(printed)
        return seen

    def update(self, cpus: str, containers: Mapping[str, Running]) -> None:
        """What the kubelet's CPU manager does with a container's cpuset."""
        self._pods("update", cpus, *(container.id for container in containers.values()))

    def remove(self, containers: Mapping[str, Running]) -> None:
        self._pods("remove", *(container.id for container in containers.values()))

    def _started(self, *arguments: str) -> dict[str, Running]:
        found = [Running(**container) for container in json.loads(self._pods(*arguments))]
        return {container.name: container for container in found}

    def _pods(self, *arguments: str, timeout: float = 300) -> str:
        command = ["python3", f"{FILES}/pods.py", IMAGE, *arguments]
        return self._guest.run(shlex.join(command), timeout=timeout).stdout


def dumped(pod: Pod) -> str:
    return json.dumps(asdict(pod))


def assert_cpus(
    guest: Guest, containers: Mapping[str, Running], expected: Mapping[str, str]
) -> None:
    """They may run there, no more and no less, and their cgroups say the same."""
    assert guest.run(LOOK + looks(containers)).stdout == lines(expected)


def wait_for_cpus(
    guest: Guest, containers: Mapping[str, Running], expected: Mapping[str, str]
) -> None:
    """Waits until `assert_cpus` holds."""
    guest.wait_until(
        f"{LOOK}seen=$({looks(containers)})\n"
        'echo "$seen"\n'
        f"test \"$seen\" = '{lines(expected).rstrip()}'",
        timeout=180,
    )


def looks(containers: Mapping[str, Running]) -> str:
    return "\n".join(
        f"look {container.name} {container.pid} {container.cgroup}"
        for container in containers.values()
    )


def lines(expected: Mapping[str, str]) -> str:
    return "".join(f"{name} {cpus} {cpus}\n" for name, cpus in expected.items())
