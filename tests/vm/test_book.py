"""Does what the pages say, in their order: writes their files, types their commands, looks.

The kubelet is the simulator's, run from the installed package's own tree as kubelet.service; its
one pod has a real container beside it, on containerd.
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

from . import runtime
from .guest import Guest, Result
from .image import TRIXIE, Recipe
from .runtime import Container, Pod, Runtime

HOUSEKEEPING = "0-1,4-5"
STATUS = "/var/lib/kubelet/node-status.json"

KUBELET = """\
[Service]
ExecStart=/usr/bin/python3 -m isolcpus_dp.simulator --admit-after 20000 {pods}
"""

# What else a page needs that is not of this project: the programs of StarlingX, which only tell its
# process monitor, and its Go plugin, as far as that holds a socket.
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

# What a page calls "as above", before which command.
AS_ABOVE = {
    "apt install ./isolcpus-dp-pin_*_all.deb": (
        "systemctl disable --now isolcpu_plugin; apt install ./isolcpus-dp_*_all.deb"
    )
}

# What only looks may be typed again until it shows what it should: things take their time.
LOOKS = re.compile(
    r"(cat|dmesg|grep|isolcpus-dp|journalctl|ls|tr) |systemctl (is-active|show|status) "
)
SECONDS = 120.0


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return TRIXIE


@pytest.fixture(scope="module")
def guest_files(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    return [*as_made(), *runtime.files(tmp_path_factory.mktemp("runtime"))]


class Reader:
    """Somebody at the guest who reads the pages and does what they say."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._containerd = Runtime(guest)
        self._written: list[Path] = []
        self._typed: set[str] = set()
        # What stands for something in a command, and what for.
        self._stands_for = {"LIST": HOUSEKEEPING, "N": "4"}

    def prepare(self) -> None:
        """The host as the first page finds it: packages are built, a kubelet is on its way."""
        self._containerd.start()
        self._guest.run(
            "mkdir build; cp /mnt/files/*.deb .; cp *.deb build/\n"
            # The reader's answer to whether it should go on.
            "echo 'APT::Get::Assume-Yes \"true\";' > /etc/apt/apt.conf.d/90yes\n"
            "systemd-run --quiet --unit=stray sleep infinity"
        )
        self._write_kubelet("")

    def read(self, page: str) -> None:
        # What a page does to a process, it says of one that is nobody's; the first ones look only.
        if page == "docs/check.md":
            self._stands_for["PID"] = self._show("stray", "MainPID")
        elif page == "docs/starlingx.md":
            self._guest.run(STARLINGX)
        for step in book.steps(page):
            if isinstance(step, Typed):
                self._type(step)
            elif step.language == "ini":
                self._write(step)
            elif step.language == "yaml":
                self._tell_kubernetes(step)

    def undo(self) -> None:
        """Takes away the files of a page: the next one begins with a host as it was."""
        if not self._written:
            return
        for path in self._written:
            self._guest.run(f"rm {path}")
        self._written.clear()
        self._guest.run(
            "systemctl daemon-reload\n"
            "systemctl restart isolcpus-dp isolcpus-dp-kubelet.path isolcpus-dp-pin"
        )
        self._wait_until_it_serves()

    def _type(self, step: Typed) -> None:
        if step.in_prose and step.commands[0].text in self._typed:
            return  # a sentence names it again
        commands = [one for one in step.commands if not book.is_elsewhere(one)]
        self._typed.update(one.text for one in commands)
        results = [self._run(command) for command in commands]
        end = time.monotonic() + SECONDS
        while not as_said(step, commands, results) and time.monotonic() < end:
            time.sleep(1)
            results = [
                self._run(command) if LOOKS.match(command.text) else result
                for command, result in zip(commands, results)
            ]
        assert as_said(step, commands, results), (
            f"{step.page}, line {step.line}, says otherwise: statuses"
            f" {[command.status for command in commands]}, output\n{step.output}\nbut:\n"
            + "\n".join(map(str, results))
        )

    def _run(self, command: Command) -> Result:
        words = "|".join(self._stands_for)
        text = re.sub(rf"\b({words})\b", lambda word: self._stands_for[word[0]], command.text)
        if text in AS_ABOVE:
            self._guest.run(AS_ABOVE[text], timeout=600)
        result = self._guest.run(text, timeout=600, check=False)
        if text.startswith("apt install ./build/"):
            self._wait_until_it_serves()
        elif text.startswith("apt install"):
            self._guest.run("systemctl start kubelet")
        return result

    def _write(self, block: Block) -> None:
        for path, text in block.files().items():
            if path.is_relative_to("/etc/systemd"):
                self._guest.run(f"mkdir -p {path.parent}")  # as systemctl edit does
            self._guest.run(f"cat > {path} <<'END'\n{text}END")
            self._written.append(path)

    def _tell_kubernetes(self, block: Block) -> None:
        said = yaml.safe_load(block.text)
        if said.get("kind") != "Pod":
            self._guest.run(f"cat > /var/lib/kubelet/config.yaml <<'END'\n{block.text}END")
        elif block.page == "README.md":  # the other pods are examples of the same
            self._make_pod(said)

    def _make_pod(self, pod: dict[str, dict[str, object]]) -> None:
        name = str(pod["metadata"]["name"])
        self._write_kubelet(f"--pod {name}=2")
        self._guest.wait_until(f'cat {STATUS}; grep \'"{name}": "Running"\' {STATUS}', timeout=120)
        running = self._containerd.run(Pod(name, [Container("main", devices=("2", "3"))]))
        # A kubelet's name for it, by which its processes are known to be its own.
        log = f"/var/log/containers/{name}_default_main-{running['main'].id}.log"
        self._guest.run(f"mkdir -p /var/log/containers; ln -s /var/log/pods/{name} {log}")
        self._stands_for["PID"] = str(running["main"].pid)

    def _write_kubelet(self, pods: str) -> None:
        unit = "/etc/systemd/system/kubelet.service"
        self._guest.run(
            f"cat > {unit} <<'END'\n{KUBELET.format(pods=pods)}END\nsystemctl daemon-reload"
        )
        # Before the package is there, nothing can simulate it.
        if self._guest.run("test -e /usr/bin/isolcpus-dp", check=False).status == 0:
            self._guest.run("systemctl restart kubelet")

    def _wait_until_it_serves(self) -> None:
        self._guest.run("systemctl start kubelet")
        for unit, state in (("isolcpus-dp", "Registered"), ("isolcpus-dp-pin", "Connected")):
            self._guest.wait_until(f"systemctl show -p StatusText {unit} | grep {state}")

    def _show(self, unit: str, name: str) -> str:
        return self._guest.run(f"systemctl show --property={name} --value {unit}").stdout.strip()


def as_said(step: Typed, commands: Sequence[Command], results: Sequence[Result]) -> bool:
    """Whether the commands ended, and printed, as the page says."""
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
def test_page_does_what_it_says(guest: Guest, reader: Reader, page: str) -> None:
    reader.read(page)
    if page == "docs/operations.md":
        guest.run("test ! -e /usr/bin/isolcpus-dp -a ! -e /etc/isolcpus-dp")
    elif page != "docs/starlingx.md":
        reader.undo()
