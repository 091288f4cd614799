"""Runs containerd in a guest, and pods in it, created as a kubelet would (see `pods`)."""

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

# Settings that differ from the defaults, by major version of containerd: the systemd cgroup driver
# and the image of the pause containers.
SETTINGS = {
    1: f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
""",
    2: f"""\
version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = true
""",
}

# NRI: enabled, which only 1.7 needs. The timeouts are longer than the default (2 s), because a
# plugin on emulated CPUs may be slower.
NRI = """\
[plugins."io.containerd.nri.v1.nri"]
disable = false
disable_connections = false
plugin_registration_timeout = "30s"
plugin_request_timeout = "30s"
"""

# Hides the containers' mounts from systemd. It creates a unit for each one, which takes longer on
# emulated CPUs than starting the containers.
DROP_IN = Path("/etc/systemd/system/containerd.service.d/quick.conf")
QUICK = """\
[Service]
PrivateMounts=yes
"""

# Prints the CPUs of a container: those of all its threads, and those of its cgroup.
LOOK = """\
look() {
    allowed=$(cat /proc/$2/task/*/status | sed -n 's/^Cpus_allowed_list:\\t//p' | sort -u | xargs)
    cpuset=$(cat $3/cpuset.cpus)
    echo "$1 $allowed $cpuset"
}
"""


@dataclass(frozen=True)
class Container:
    """A container to create; `devices` are the IDs that the kubelet has allocated."""

    name: str
    devices: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: str = ""  # from the static CPU manager, for a container of a Guaranteed pod
    quota: int = 0  # µs in 100 ms; 0 is no limit
    threads: int = 0  # that compute forever


@dataclass(frozen=True)
class Pod:
    """A pod with its author's annotations. `quota` limits it: µs in 100 ms, 0 is no limit."""

    name: str
    containers: Sequence[Container]
    annotations: Mapping[str, str] = field(default_factory=dict)
    quota: int = 0


@dataclass(frozen=True)
class Running:
    """A started container; `allowed` and `cpuset` are its CPUs at the start."""

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
    """Creates the guest's files in `directory`: pods.py, its gRPC stubs, a container image."""
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
    """The guest's containerd. Call `start` first."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def start(self, nri: str = NRI) -> None:
        """Imports the image, writes the settings, and restarts containerd to read both.

        Without the text `nri`, NRI is as containerd has it by default.
        """
        version = self._guest.run("containerd --version").stdout.split()[2]
        settings = SETTINGS[int(version.lstrip("v").partition(".")[0])] + nri
        self._guest.run(f"ctr --namespace k8s.io images import {FILES}/image.tar")
        self._guest.run(
            f"mkdir -p {DROP_IN.parent}\n"
            f"cat > {DROP_IN} <<'END'\n{QUICK}END\n"
            f"cat > {CONFIG} <<'END'\n{settings}END\n"
            "systemctl daemon-reload && systemctl restart containerd"
        )

    def run(self, pod: Pod) -> dict[str, Running]:
        """Creates and starts all containers of the pod. Returns them by name."""
        return self._started("run", dumped(pod))

    def run_while_it_dies(self, pid: int, pod: Pod) -> dict[str, Running]:
        """Like `run`, but kills process `pid` while the runtime waits for its answer."""
        return self._started("run-while-it-dies", dumped(pod), str(pid))

    def churn(self, count: int, pod: Pod) -> list[dict[str, Any]]:
        """Creates and removes `count` containers, cycling through those of the pod, 8 at a time.

        Returns for each the CPUs in its specification, whether it was to be started and, if it was
        started in time, its CPUs then.
        """
        printed = self._pods("churn", dumped(pod), str(count), "--start", timeout=1200)
        seen: list[dict[str, Any]] = json.loads(printed)
        return seen

    def churn_meanwhile(self, count: int, pod: Pod, repeated: str) -> list[dict[str, Any]]:
        """Like `churn`, but starts none, and runs a command again and again until the end."""
        printed = self._guest.run(
            f"{command('churn', dumped(pod), str(count))} > /root/seen &\n"
            f"while kill -0 $! 2>/dev/null; do {repeated}; done\n"
            "wait $! && cat /root/seen",
            timeout=600,
        ).stdout
        seen: list[dict[str, Any]] = json.loads(printed)
        return seen

    def update(self, cpus: str, containers: Mapping[str, Running]) -> None:
        """Sets the cpuset of containers, as the kubelet's CPU manager does."""
        self._pods("update", cpus, *(container.id for container in containers.values()))

    def remove(self, containers: Mapping[str, Running]) -> None:
        self._pods("remove", *(container.id for container in containers.values()))

    def _started(self, *arguments: str) -> dict[str, Running]:
        found = [Running(**container) for container in json.loads(self._pods(*arguments))]
        return {container.name: container for container in found}

    def _pods(self, *arguments: str, timeout: float = 300) -> str:
        return self._guest.run(command(*arguments), timeout=timeout).stdout


def command(*arguments: str) -> str:
    return shlex.join(["python3", f"{FILES}/pods.py", IMAGE, *arguments])


def dumped(pod: Pod) -> str:
    return json.dumps(asdict(pod))


def assert_cpus(
    guest: Guest, containers: Mapping[str, Running], expected: Mapping[str, str]
) -> None:
    """Asserts that threads and cgroups of each container have exactly the expected CPUs."""
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
