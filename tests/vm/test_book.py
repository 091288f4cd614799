"""Follows the pages of the documentation in order: writes their files, runs their commands.

The guest is a bare host, which is configured as the quickstart says: `plan`, its commands, and a
reboot. The simulated kubelet of the installed package runs as kubelet.service. The container of its
only pod runs on containerd.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests import book
from tests.book import Block, Command, Typed
from tests.packages.build import as_made

from . import configured_kubelet, pinning, runtime, tracing
from .guest import Guest, Result
from .recipe import TRIXIE_BARE, Recipe
from .runtime import Container, Pod, Runtime

HOUSEKEEPING = "0-1,4-5"
PLAN = "isolcpus-dp plan --write /"

# Substitutes for programs of StarlingX that a page uses: the commands of its process monitor, which
# do nothing here, and its Go plugin, which only listens on a socket here.
STARLINGX = """\
mkdir -p /etc/pmon.d /usr/share/starlingx/pmon.d /usr/local/sbin
touch /usr/share/starlingx/pmon.d/isolcpu_plugin.conf
ln -s /usr/share/starlingx/pmon.d/isolcpu_plugin.conf /etc/pmon.d/
for program in stop restart; do ln -s /bin/true /usr/local/sbin/pmon-$program; done
cat > /usr/local/sbin/isolcpu_plugin <<'END'
import pathlib, signal, socket
path = pathlib.Path("/var/lib/kubelet/device-plugins/windriver.com-isolcpus.sock")
path.parent.mkdir(parents=True, exist_ok=True)
path.unlink(missing_ok=True)
server = socket.socket(socket.AF_UNIX)
server.bind(str(path))
server.listen()
signal.pause()
END
cat > /etc/systemd/system/isolcpu_plugin.service <<'END'
[Service]
ExecStart=/usr/bin/python3 -IS /usr/local/sbin/isolcpu_plugin
[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --now isolcpu_plugin
"""

# By command: the steps that a page refers to with "as above", which are run before it.
AS_ABOVE = {
    "apt install ./isolcpus-dp-pin_*_all.deb": (
        "systemctl disable --now isolcpu_plugin; apt install ./isolcpus-dp_*_all.deb"
    )
}

# Commands that change nothing. They are repeated until their output matches, for up to SECONDS.
LOOKS = re.compile(
    r"(cat|dmesg|grep|isolcpus-dp(?! plan --write)|journalctl|ls|tr) "
    r"|systemctl (is-active|show|status) "
)
SECONDS = 120.0


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return TRIXIE_BARE


@pytest.fixture(scope="module")
def arguments() -> str:
    """None: the boot loader of the guest has them."""
    return ""


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return [*as_made(), *runtime.files(tmp_path_factory.mktemp("runtime"))]


class Reader:
    """Runs the steps of the pages in the guest."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._containerd = Runtime(guest)
        self._written: list[Path] = []
        self._typed: set[str] = set()
        self._is_planned = False
        # The placeholders in commands, and their values.
        self._placeholders = {"LIST": HOUSEKEEPING, "N": "4"}

    def prepare(self) -> None:
        """Prepares the host for the first page: the packages are built, kubelet.service exists."""
        self._containerd.start(nri="")
        self._guest.run(
            "mkdir build; cp /mnt/files/*.deb .; cp *.deb build/\n"
            # Answers apt's question whether to continue.
            "echo 'APT::Get::Assume-Yes \"true\";' > /etc/apt/apt.conf.d/90yes"
        )
        configured_kubelet.install(self._guest)
        self._guest.run("systemctl enable kubelet")

    def read(self, page: str) -> None:
        if page == "docs/check.md":
            self._prepare_checks()
        elif page == "docs/measure.md":
            tracing.keep_tracepoints_on(self._guest)
        elif page == "docs/starlingx.md":
            self._guest.run(STARLINGX)
        for step in book.steps(page):
            if isinstance(step, Typed):
                self._type(step)
            elif step.language == "ini":
                self._write(step)
            elif step.language == "yaml":
                self._apply_yaml(step)

    def _prepare_checks(self) -> None:
        """What the page shows is not ok, and a process that belongs to no pod, for it to move."""
        self._guest.run(
            "sysctl kernel.numa_balancing=1\nsystemd-run --quiet --unit=stray sleep infinity"
        )
        self._placeholders["PID"] = self._show("stray", "MainPID")

    def _follow(self, next_commands: str) -> None:
        """Runs the commands that a plan ends with, as an administrator does, up to the reboot."""
        self._guest.run(
            "echo KUBELET_EXTRA_ARGS=--config-dir=/etc/kubernetes/kubelet.conf.d"
            " > /etc/default/kubelet"
        )
        for command in map(str.strip, next_commands.splitlines()):
            if command == "systemctl reboot":
                self._guest.reboot()
                break
            if not command.startswith("kubectl "):  # there is no API server
                self._guest.run(command, timeout=120)
        self._is_planned = True
        self._wait_for_daemons()

    def undo(self) -> None:
        """Removes the files of a page, so that the next one starts with the same host."""
        if not self._written:
            return
        for path in self._written:
            self._guest.run(f"rm {path}")
        self._written.clear()
        self._guest.run(
            "systemctl daemon-reload\n"
            "systemctl restart isolcpus-dp isolcpus-dp-kubelet.path isolcpus-dp-pin"
        )
        self._wait_for_daemons()

    def _type(self, step: Typed) -> None:
        if step.in_prose and step.commands[0].text in self._typed:
            return  # a sentence mentions a command that was run before
        commands = [one for one in step.commands if not book.is_elsewhere(one)]
        self._typed.update(one.text for one in commands)
        results = [self._run(command) for command in commands]
        end = time.monotonic() + SECONDS
        while not matches_page(step, commands, results) and time.monotonic() < end:
            time.sleep(1)
            results = [
                self._run(command) if LOOKS.match(command.text) else result
                for command, result in zip(commands, results)
            ]
        assert matches_page(step, commands, results), (
            f"{step.page}, line {step.line}, says otherwise: statuses"
            f" {[command.status for command in commands]}, output\n{step.output}\nbut:\n"
            + "\n".join(map(str, results))
        )

    def _run(self, command: Command) -> Result:
        words = "|".join(self._placeholders)
        text = re.sub(rf"\b({words})\b", lambda word: self._placeholders[word[0]], command.text)
        if text in AS_ABOVE:
            self._guest.run(AS_ABOVE[text], timeout=600)
        result = self._guest.run(text, timeout=600, check=False)
        if text == PLAN and not self._is_planned:
            self._follow(result.stdout.partition("\nNext, as root;")[2].partition("\n")[2])
        elif text.startswith("apt install ./build/"):
            self._wait_for_daemons()
        elif text.startswith("apt install"):
            self._guest.run("systemctl start kubelet")
        return result

    def _write(self, block: Block) -> None:
        for path, text in block.files().items():
            if path.is_relative_to("/etc/systemd"):
                self._guest.run(f"mkdir -p {path.parent}")  # as systemctl edit does
            self._guest.run(f"cat > {path} <<'END'\n{text}END")
            self._written.append(path)

    def _apply_yaml(self, block: Block) -> None:
        document = yaml.safe_load(block.text)
        if document.get("kind") != "Pod":
            self._guest.run(f"cat > /var/lib/kubelet/config.yaml <<'END'\n{block.text}END")
        elif block.page == "docs/quickstart.md":  # the other pages show similar pods
            self._make_pod(document)

    def _make_pod(self, pod: dict[str, dict[str, object]]) -> None:
        name = str(pod["metadata"]["name"])
        configured_kubelet.set_pods(self._guest, f"{name}=2")
        running = self._containerd.run(Pod(name, [Container("main", devices=("2", "3"))]))
        # The kubelet would create this link; isolcpus-dp finds the pod of a process by it.
        log = f"/var/log/containers/{name}_default_main-{running['main'].id}.log"
        self._guest.run(f"mkdir -p /var/log/containers; ln -s /var/log/pods/{name} {log}")
        self._placeholders["PID"] = str(running["main"].pid)

    def _wait_for_daemons(self) -> None:
        self._guest.run("systemctl start kubelet")
        self._guest.wait_until("systemctl show -p StatusText isolcpus-dp | grep Registered")
        if self._is_planned:  # before, the runtime has no NRI
            pinning.wait_for_connection(self._guest)

    def _show(self, unit: str, name: str) -> str:
        return self._guest.run(f"systemctl show --property={name} --value {unit}").stdout.strip()


def matches_page(step: Typed, commands: Sequence[Command], results: Sequence[Result]) -> bool:
    """Returns whether the exit statuses and the output are those on the page."""
    printed = "".join(result.stdout for result in results)
    return [one.status for one in commands] == [one.status for one in results] and (
        step.output is None or book.shows(step.output, printed)
    )


@pytest.fixture(scope="module")
def reader(guest: Guest) -> Reader:
    prepared = Reader(guest)
    prepared.prepare()
    return prepared


@pytest.mark.parametrize("page", book.ON_A_GUEST)
def test_commands_of_the_page_work_as_described(guest: Guest, reader: Reader, page: str) -> None:
    reader.read(page)
    if page == "docs/operations.md":
        guest.run("test ! -e /usr/bin/isolcpus-dp -a ! -e /etc/isolcpus-dp")
    elif page != "docs/starlingx.md":
        reader.undo()
