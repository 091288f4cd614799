"""The report of `isolcpus-dp status`, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from isolcpus_dp.kubelet import podresources
from isolcpus_dp.kubelet.podresources import Allocation
from isolcpus_dp.report import snapshot, status
from isolcpus_dp.report.snapshot import Owner, Snapshot

from .conftest import MakeUp, without_smt

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/status.schema.json").read_text())

RUNNING = {
    "isolcpus-dp.service": {
        "LoadState": "loaded",
        "ActiveState": "active",
        "StatusText": "Registered windriver.com/isolcpus: 4 devices, 0 unhealthy",
    },
    "isolcpus-dp-pin.service": {"LoadState": "not-found", "ActiveState": "inactive"},
}


def running(unit: str) -> Mapping[str, str]:
    return RUNNING[unit]


def no_systemd(unit: str) -> Mapping[str, str]:
    raise OSError("System has not been booted with systemd")


@pytest.fixture
def seen(make_up: MakeUp, tmp_path: Path) -> Snapshot:
    """CPUs 2-3 and 6-7 are isolated; a pod owns the core 2,6."""
    tree = make_up("1x4x2", {2, 3, 6, 7})
    bare = snapshot.take(tree.root, None, tmp_path)
    owner = Allocation("default", "forwarder", "main", "windriver.com/isolcpus", ("2", "6"))
    return Snapshot(bare.machine, bare.config, bare.pools, (Owner(owner, frozenset({2, 6})),), ())


def test_text_shows_counts_owners_and_daemons(seen: Snapshot) -> None:
    found = status.look(seen, running)
    assert found.well
    assert status.as_text(found) == (
        "windriver.com/isolcpus: CPUs isolated 4  healthy 4  allocated 2  free 2\n"
        "  2,6              default/forwarder/main\n"
        "\n"
        "isolcpus-dp.service      active   Registered windriver.com/isolcpus: 4 devices,"
        " 0 unhealthy\n"
        "isolcpus-dp-pin.service  not installed\n"
        "registered: with the kubelet"
    )


def test_json_matches_its_schema(seen: Snapshot) -> None:
    found = json.loads(status.as_json(status.look(seen, running)))
    jsonschema.validate(found, SCHEMA)
    assert found["pools"] == [
        {
            "resource": "windriver.com/isolcpus",
            "cpus": {
                "isolated": "2-3,6-7",
                "healthy": "2-3,6-7",
                "allocated": "2,6",
                "free": "3,7",
            },
            "devices": 4,
            "unhealthy": [],
            "reasons": {},
            "unknown": [],
            "warnings": [],
        }
    ]
    assert found["allocations"] == [
        {
            "resource": "windriver.com/isolcpus",
            "namespace": "default",
            "pod": "forwarder",
            "container": "main",
            "cpus": "2,6",
        }
    ]
    assert (found["well"], found["registered"], found["unseen"]) == (True, True, [])


def test_report_without_systemd_and_kubelet(make_up: MakeUp, tmp_path: Path) -> None:
    tree = make_up("1x4x2", {2, 3, 6, 7})
    found = status.look(snapshot.take(tree.root, None, tmp_path), no_systemd)
    assert not found.well
    text = status.as_text(found)
    assert "windriver.com/isolcpus: CPUs isolated 4  healthy 4  allocated ?  free ?" in text
    assert text.endswith(
        "registered: unknown\n"
        f"unknown: CPU owners: {tmp_path}/pod-resources/kubelet.sock does not exist:"
        " is the kubelet running?\n"
        "unknown: state of the daemons: System has not been booted with systemd"
    )
    document = json.loads(status.as_json(found))
    jsonschema.validate(document, SCHEMA)
    assert document["pools"][0]["cpus"]["free"] is None


def test_offline_cpu_is_not_well(make_up: MakeUp, tmp_path: Path) -> None:
    tree = make_up("1x4x2", {2, 3, 6, 7})
    tree.set_offline(7)
    found = status.look(snapshot.take(tree.root, None, tmp_path), running)
    assert (found.registered, found.well) == (True, False)
    assert "  unhealthy: device 7: CPU 7 is offline\n" in status.as_text(found)
    document = json.loads(status.as_json(found))
    jsonschema.validate(document, SCHEMA)
    assert document["pools"][0]["reasons"] == {"7": "CPU 7 is offline"}


def test_host_without_smt_is_well(make_up: MakeUp, tmp_path: Path) -> None:
    tree = without_smt(make_up("1x4x2", {2, 3, 6, 7}))
    found = status.look(snapshot.take(tree.root, None, tmp_path), running)
    assert found.well
    assert status.as_text(found).startswith(
        "windriver.com/isolcpus: CPUs isolated 2  healthy 2  allocated ?  free ?\n"
        "  note: CPU 6-7 is offline because SMT is off, and is not offered until it comes online\n"
    )


def test_devices_that_no_pool_has_are_counted(seen: Snapshot) -> None:
    held = Allocation("default", "old", "main", "windriver.com/isolcpus", ("3", "9", "x"))
    other = Allocation("default", "gpu", "main", "example.com/gpu", ("0", "1"))
    owners = (*seen.owners, Owner(held, frozenset({3, 9})), Owner(other, frozenset()))
    found = status.look(replace(seen, owners=owners), running)
    assert status.as_text(found).startswith(
        "windriver.com/isolcpus: CPUs isolated 4  healthy 4  allocated 3  free 1"
        "  not in the pool 2\n"
        "  2,6              default/forwarder/main\n"
        "  3,9              default/old/main\n"
        "                   not in the pool: device 9, x\n"
        "\n"
    )
    document = json.loads(status.as_json(found))
    jsonschema.validate(document, SCHEMA)
    [pool] = document["pools"]
    assert (pool["cpus"]["allocated"], pool["unknown"]) == ("2-3,6", ["9", "x"])


@pytest.mark.parametrize(
    "changed",
    [
        {"ActiveState": "failed", "StatusText": ""},
        {"StatusText": "Waiting for the kubelet to register windriver.com/isolcpus: 4 devices"},
        {"StatusText": "Rejected by the kubelet: no. Registered example.com/a: 2 devices"},
    ],
)
def test_daemon_that_is_not_registered_is_not_well(seen: Snapshot, changed: dict[str, str]) -> None:
    def show(unit: str) -> Mapping[str, str]:
        return {**RUNNING[unit], **changed} if unit == "isolcpus-dp.service" else RUNNING[unit]

    found = status.look(seen, show)
    assert (found.registered, found.well) == (False, False)


def test_device_no_longer_offered_still_has_its_owner(make_up: MakeUp) -> None:
    tree = make_up("1x4x2", {2, 3})
    bare = snapshot.take(tree.root, None, tree.root)
    gone = Allocation("default", "old", "main", "windriver.com/isolcpus", ("3", "9"))
    assert podresources.owned(bare.pools[0], gone) == {3, 9}


def test_status_shows_the_cpus_of_each_pool(make_up: MakeUp, tmp_path: Path) -> None:
    file = tmp_path / "isolcpus-dp.conf"
    file.write_text(
        "[Pool a]\nResourceName=example.com/a\nCoreType=performance\nCount=2\n"
        "[Pool b]\nResourceName=example.com/b\nNear=0000:3b:00.0\n"
    )
    tree = make_up("1x4x2", {2, 3, 6, 7})
    seen = snapshot.take(tree.root, file, tmp_path)
    assert status.as_text(status.look(seen, running)).splitlines()[:7] == [
        "windriver.com/isolcpus: CPUs isolated 2  healthy 2  allocated ?  free ?",
        "  CPUs 3,7",
        "example.com/a: CPUs isolated 2  healthy 2  allocated ?  free ?",
        "  CPUs 2,6, selected by CoreType=performance Count=2",
        "example.com/b: CPUs isolated 0  healthy 0  allocated ?  free ?",
        "  CPUs (none), selected by Near=0000:3b:00.0",
        "  note: Near=0000:3b:00.0 matches no isolated CPU: this machine has no such device",
    ]
