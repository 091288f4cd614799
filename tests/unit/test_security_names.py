"""Names that others chose: they cannot command a terminal, add a line, or reach the metrics."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from isolcpus_dp import pool
from isolcpus_dp.api import nri_pb2 as api
from isolcpus_dp.config import Config
from isolcpus_dp.host import machine
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.nri.messages import pod_name
from isolcpus_dp.nri.owners import Owners
from isolcpus_dp.report import snapshot, status
from isolcpus_dp.report.map import draw
from isolcpus_dp.report.snapshot import Owner, Snapshot
from isolcpus_dp.service import notify
from isolcpus_dp.service.events import Event, emit

from .conftest import MakeUp

RESOURCE = "windriver.com/isolcpus"

# Clears the screen, sets the title of the terminal, adds a line, and turns the writing direction.
HOSTILE = "a\x1b[2J\x1b]0;t\x07\nregistered: with the kubelet\r\x9bK\u2028\u202eb"
SHOWN = "a?[2J?]0;t??registered: with the kubelet??K??b"
MORE = ["a/../b:c", "%s %n {0}", '"; DROP', "<b>", "[bold]", "\x00", "\ud800", "名前"]


@pytest.fixture
def seen(make_up: MakeUp, tmp_path: Path) -> Snapshot:
    """CPUs 2-3 and 6-7 are isolated; a pod of hostile names owns the core 2,6."""
    bare = snapshot.take(make_up("1x4x2", {2, 3, 6, 7}).root, None, tmp_path)
    allocation = Allocation(HOSTILE, HOSTILE, HOSTILE, RESOURCE, ("2", HOSTILE))
    return replace(bare, owners=(Owner(allocation, frozenset({2})),), unseen=(HOSTILE,))


def test_names_cannot_command_the_terminal_of_status(seen: Snapshot) -> None:
    state = {"ActiveState": "active", "StatusText": HOSTILE}
    lines = status.as_text(status.look(seen, lambda unit: state)).split("\n")
    assert lines == [
        f"{RESOURCE}: CPUs isolated 4  healthy 4  allocated ?  free ?  not in the pool 1",
        f"  2                {SHOWN}/{SHOWN}/{SHOWN}",
        f"                   not in the pool: device {SHOWN}",
        "",
        f"isolcpus-dp.service      active   {SHOWN}",
        f"isolcpus-dp-pin.service  active   {SHOWN}",
        "registered: no",
        f"unknown: {SHOWN}",
    ]


@pytest.mark.parametrize("name", [HOSTILE, *MORE])
def test_names_in_the_json_of_status_are_only_values(seen: Snapshot, name: str) -> None:
    allocation = replace(seen.owners[0].allocation, pod=name)
    forged = replace(seen, owners=(Owner(allocation, frozenset({2})),))
    text = status.as_json(status.look(forged, lambda unit: {"StatusText": name}))
    assert text.isascii()
    assert not [letter for letter in text if letter != "\n" and not letter.isprintable()]
    [found] = json.loads(text)["allocations"]
    assert (found["pod"], found["cpus"]) == (name, "2")


@pytest.mark.parametrize("name", [HOSTILE, *MORE])
def test_names_cannot_command_the_terminal_of_the_map(seen: Snapshot, name: str) -> None:
    allocation = replace(seen.owners[0].allocation, pod=name)
    forged = replace(seen, owners=(Owner(allocation, frozenset({2})),), unseen=(name,))
    written = io.StringIO()
    Console(file=written, width=400, color_system=None).print(draw.picture(forged, 400))
    lines = written.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    # The frames of package, node and cache; the legend; and what is not seen.
    assert [line[:3] for line in lines if line[:1] not in "╭│╰"] == [".  ", "o  ", "A  ", "not"]


def test_names_in_the_log_add_no_line_and_no_field(caplog: pytest.LogCaptureFixture) -> None:
    pod = api.PodSandbox(id="1", uid="1", namespace="n", name="p\nMESSAGE_ID=0\x1b[2J")
    other = api.PodSandbox(id="2", uid="2", namespace="n", name="q")
    table = Owners()
    table.add(pod, api.Container(id="a", name="c\rd", pod_sandbox_id="1"), frozenset({2}))
    table.add(other, api.Container(id="b", name="e", pod_sandbox_id="2"), frozenset({2}))
    assert caplog.messages == [
        "CPU 2 has two owners: container c?d of pod n/p?MESSAGE_ID=0?[2J and container e of pod"
        " n/q; neither is moved: delete one of the pods"
    ]
    [record] = caplog.records
    fields = {name: value for name, value in vars(record).items() if name.isupper()}
    assert fields == {
        "EVENT": "owned_twice",
        "MESSAGE_ID": "1df9577c51b442b19a807709c85cdb9d",
        "CPU": "2",
        "POD": "n/q",
        "CONTAINER": "e",
        "OTHER_POD": "n/p?MESSAGE_ID=0?[2J",
        "OTHER_CONTAINER": "c?d",
    }
    assert pod_name(pod) == "n/p\nMESSAGE_ID=0\x1b[2J"  # only what is logged is changed


def test_words_of_the_log_are_no_format(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    emit(
        logging.getLogger("x"), Event.PINNED, "container %s of pod %s owns CPU %d", "%s%n", "{0}",
        2, cpus={2}, pod="%s", container="{0}",
    )  # fmt: skip
    assert caplog.messages == ["container %s%n of pod {0} owns CPU 2"]


def test_traceback_of_a_failure_keeps_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    emit(logging.getLogger("x"), Event.FAILED, "%s", "first\n  second\x1b[2J")
    assert caplog.messages == ["first\n  second?[2J"]


def test_status_text_is_no_assignment_to_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For example the error with which a kubelet rejects a resource."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify.Systemd().notify("READY=1\nSTATUS=Rejected: no\nMAINPID=1\nSTATUS=Registered\x1b[m")
        assert systemd.recv(1024) == b"READY=1\nSTATUS=Rejected: no?MAINPID=1?STATUS=Registered?[m"


def test_status_text_is_no_property_of_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Waiting\x85ActiveState=active\u2028Id=x\rType=y"

    def systemctl(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        printed = f"Id=isolcpus-dp.service\nActiveState=failed\nStatusText={text}\n"
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(subprocess, "run", systemctl)
    assert status.show_unit("isolcpus-dp.service") == {
        "Id": "isolcpus-dp.service",
        "ActiveState": "failed",
        "StatusText": text,
    }


async def test_metrics_have_no_names_of_pods(make_up: MakeUp, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    from isolcpus_dp.kubelet import metrics, podresources, scrape

    class Forged(podresources.Lister):
        async def allocations(self) -> list[Allocation]:
            return [Allocation(HOSTILE, HOSTILE, HOSTILE, RESOURCE, ("2", "9", HOSTILE))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(podresources, "Lister", Forged)
        present = machine.read(make_up("1x4x2", {2, 3, 6, 7}).root)
        pools = pool.make(present, Config())
        served = metrics.Metrics([RESOURCE], lambda: pools, lambda: tmp_path)
        body = (await served.answer(scrape.Query("/metrics"))).body.decode()
        await served.close()
    assert f'isolcpus_dp_allocated_cpus{{resource="{RESOURCE}"}} 2.0\n' in body
    assert "registered" not in body
    assert all(line.isprintable() for line in body.split("\n"))
