"""The kubelet's settings about CPUs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from isolcpus_dp.report.check import files, kubelet, table
from isolcpus_dp.report.check.finding import Verdict
from tests.unit.conftest import MakeUp

from .conftest import MadeUpHost

STATIC = "cpuManagerPolicy: static"


def state(policy: str, default: str, given: str) -> str:
    return json.dumps(
        {
            "policyName": policy,
            "defaultCpuSet": default,
            "entries": {"uid": {"main": given}},
            "checksum": 1,
        }
    )


def test_reserved_isolated_cpus_are_ok(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0,2-3,6-7"')
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("settings", "reserved", "wanted"),
    [
        ("reservedSystemCPUs: 0,2-3", "0,2-3", "0,2-3,6-7"),
        (STATIC, "not set", "2-3,6-7"),
    ],
)
def test_isolated_cpus_that_count_as_cpu_are_a_problem(
    made_up: MadeUpHost, settings: str, reserved: str, wanted: str
) -> None:
    made_up.kubelet("config.yaml", settings)
    found = kubelet.reserved_cpus(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence.startswith(f"reservedSystemCPUs is {reserved}: ")
    assert f'reservedSystemCPUs: "{wanted}"' in found.advice


def test_kubelet_command_line_overrides_its_file(made_up: MadeUpHost, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("reservedSystemCPUs: 0-1\n")
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", f"/usr/bin/kubelet\0--config={tmp_path}/other.yaml\0--v\x002")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.PROBLEM
    made_up.proc(
        "90/cmdline",
        f"kubelet\0--config\0{tmp_path}/other.yaml\0--reserved-cpus=2-3,6-7",
    )
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


def test_kubelet_in_a_container_is_not_trusted(made_up: MadeUpHost, tmp_path: Path) -> None:
    made_up.kubelet("config.yaml", "reservedSystemCPUs: 2-3,6-7")
    (tmp_path / "its.yaml").write_text("reservedSystemCPUs: 0-1\n")
    made_up.process(80, "kubelet", "0-1,4-5")
    made_up.proc("80/cmdline", f"kubelet\0--config={tmp_path}/its.yaml")
    made_up.contains(80, "a", None)
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK
    # The host's own kubelet is trusted, also with a higher PID.
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "kubelet\0--reserved-cpus=0-1")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.PROBLEM


def test_configuration_must_be_a_regular_file(made_up: MadeUpHost, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    made_up.process(90, "kubelet", "0-1,4-5")
    for name in (tmp_path / "pipe", Path("/dev/zero")):
        made_up.proc("90/cmdline", f"kubelet\0--config={name}")
        with pytest.raises(files.Unseen, match=f"{name} is not a regular file of at most 1 MiB"):
            kubelet.reserved_cpus(made_up.host())


def test_kubelet_without_reserved_cpus_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", "kubelet\0--node-ip=192.0.2.1")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.PROBLEM


def test_kubelet_drop_ins_override_its_file(made_up: MadeUpHost, tmp_path: Path) -> None:
    (tmp_path / "drop-ins").mkdir()
    (tmp_path / "drop-ins/10-cpus.conf").write_text("reservedSystemCPUs: 2-3,6-7\n")
    made_up.kubelet("config.yaml", "reservedSystemCPUs: 0-1")
    made_up.process(90, "kubelet", "0-1,4-5")
    made_up.proc("90/cmdline", f"kubelet\0--config-dir={tmp_path}/drop-ins")
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [("", "config.yaml does not exist"), ("a: [", "is not valid YAML: while parsing")],
)
def test_unreadable_configuration_is_unknown(
    made_up: MadeUpHost, settings: str, sentence: str
) -> None:
    made_up.kubelet("config.yaml", settings)
    with pytest.raises(files.Unseen, match=sentence):
        kubelet.reserved_cpus(made_up.host())


def test_configuration_is_unknown_without_pyyaml(
    made_up: MadeUpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    made_up.kubelet("config.yaml", STATIC)
    with pytest.raises(files.Unseen, match="install python3-yaml"):
        kubelet.topology_manager(made_up.host())


@pytest.mark.parametrize(
    ("settings", "checkpoint"),
    [
        ("kind: KubeletConfiguration", state("none", "", "")),
        ("kind: KubeletConfiguration", ""),
        (STATIC, state("static", "0-1,4-5", "1")),
    ],
)
def test_cpu_manager_without_isolated_cpus_is_ok(
    made_up: MadeUpHost, settings: str, checkpoint: str
) -> None:
    made_up.kubelet("config.yaml", settings)
    made_up.kubelet("cpu_manager_state", checkpoint)
    assert kubelet.cpu_manager(made_up.host()).verdict is Verdict.OK


def test_cpu_manager_that_shares_isolated_cpus_is_a_warning(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", state("static", "0,2-7", "1"))
    found = kubelet.cpu_manager(made_up.host())
    assert found.verdict is Verdict.WARNING
    assert found.evidence.endswith("all other containers run on isolated CPU 2-3,6-7")


def test_cpu_manager_that_assigns_isolated_cpus_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", state("static", "0-1,4-5", "2,6"))
    found = kubelet.cpu_manager(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == "the CPU manager gave isolated CPU 2,6 to containers as cpu"


def test_state_file_of_an_old_kubelet_is_parsed(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    old = {"policyName": "static", "defaultCpuSet": "0-1,4-5", "entries": {"id": "2"}}
    made_up.kubelet("cpu_manager_state", json.dumps(old))
    assert kubelet.cpu_manager(made_up.host()).verdict is Verdict.PROBLEM


def test_state_file_of_another_policy_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", state("none", "", ""))
    found = kubelet.cpu_manager(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert "the policy is static, but cpu_manager_state has policy none" in found.evidence


def test_broken_state_file_is_unknown(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", "{")
    with pytest.raises(files.Unseen, match="is not valid JSON"):
        kubelet.cpu_manager(made_up.host())


def test_state_file_with_invalid_entries_is_unknown(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", '{"policyName": "static", "entries": "x"}')
    [result] = table.run(made_up.host(), ["cpu-manager"])
    assert (result.finding.verdict, result.finding.evidence) == (
        Verdict.UNKNOWN,
        "unexpected content: entries of cpu_manager_state is not an object",
    )


@pytest.mark.parametrize(
    ("shape", "policy", "verdict"),
    [
        ("1x4x2", "none", Verdict.OK),
        ("2x2x2", "best-effort", Verdict.OK),
        ("2x2x2", "none", Verdict.WARNING),
    ],
)
def test_topology_manager_matters_with_several_numa_nodes(
    make_up: MakeUp, tmp_path: Path, shape: str, policy: str, verdict: Verdict
) -> None:
    made_up = MadeUpHost(make_up(shape, {2, 3, 6, 7}), tmp_path)
    made_up.kubelet("config.yaml", f"topologyManagerPolicy: {policy}")
    assert kubelet.topology_manager(made_up.host()).verdict is verdict
