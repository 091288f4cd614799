"""The kubelet's checkpoint of allocations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from isolcpus_dp import pool
from isolcpus_dp.config import Config, PoolConfig
from isolcpus_dp.host.files import Unseen
from isolcpus_dp.kubelet import paths
from isolcpus_dp.measure import checkpoint
from isolcpus_dp.measure.checkpoint import Entry
from isolcpus_dp.simulator.machine import described, regular

RESOURCE = "windriver.com/isolcpus"
UID = "1b2f8c3e-0000-4000-8000-000000000001"
ENTRY = Entry(UID, "main", RESOURCE, ("2", "6"))


def text(*entries: Mapping[str, object] | None) -> str:
    return json.dumps({"Data": {"PodDeviceEntries": entries or None}, "Checksum": 1})


def entry(device_ids: object, resource: str = RESOURCE) -> dict[str, object]:
    return {
        "PodUID": UID,
        "ContainerName": "main",
        "ResourceName": resource,
        "DeviceIDs": device_ids,
        "AllocResp": "",
    }


def write(kubelet_dir: Path, content: str) -> None:
    file = paths.checkpoint(kubelet_dir)
    file.parent.mkdir(parents=True)
    file.write_text(content)


@pytest.mark.parametrize("ids", [{"0": ["6"], "1": ["2"]}, ["2", "6"]], ids=["by node", "list"])
def test_entry_has_the_devices_of_all_numa_nodes(ids: object) -> None:
    assert checkpoint.parse(text(entry(ids))) == {ENTRY}


def test_checkpoint_without_entries_is_null() -> None:
    assert checkpoint.parse(text()) == set()


def test_missing_checkpoint_has_no_entries(tmp_path: Path) -> None:
    assert checkpoint.read(tmp_path) == set()


def test_checkpoint_is_read_from_the_kubelets_directory(tmp_path: Path) -> None:
    write(tmp_path, text(entry({"0": ["2", "6"]})))
    assert checkpoint.read(tmp_path) == {ENTRY}


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"Data": 1}', text({"PodUID": "x"})])
def test_other_format_is_unseen(content: str, tmp_path: Path) -> None:
    write(tmp_path, content)
    with pytest.raises(Unseen, match=r"does not have the format of a kubelet's checkpoint$"):
        checkpoint.read(tmp_path)


def test_only_entries_of_known_resources_have_cpus() -> None:
    machine = described(regular(1, 4, 2), {1, 2, 3, 5, 6, 7})
    pools = pool.make(machine, Config(pools=(PoolConfig(),)))
    foreign = Entry(UID, "main", "example.com/gpu", ("3",))
    assert checkpoint.cpus([ENTRY, foreign], pools) == {2: ENTRY, 6: ENTRY}


@pytest.mark.parametrize(
    "cgroup",
    [
        f"/kubepods/pod{UID}/0123",
        f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-0123.scope",
    ],
    ids=["cgroupfs", "systemd"],
)
def test_pod_with_a_process_in_its_cgroup_is_running(cgroup: str, tmp_path: Path) -> None:
    (tmp_path / "812").mkdir()
    (tmp_path / "812/cgroup").write_text(f"0::{cgroup}\n")
    ended = Entry("another", "main", RESOURCE, ("3",))
    assert checkpoint.running([ENTRY, ended], tmp_path) == {ENTRY}


def test_pod_without_processes_has_ended(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/cgroup").write_text("0::/init.scope\n")
    assert checkpoint.running([ENTRY], tmp_path) == set()
