"""The kubelet's settings about CPUs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from isolcpus_dp.host import trust
from isolcpus_dp.report.check import files, kubelet
from isolcpus_dp.report.check.finding import Verdict

from .conftest import MadeUpHost

STATIC = "cpuManagerPolicy: static\nreservedSystemCPUs: 0,4"
STRICT = """
cpuManagerPolicy: static
cpuManagerPolicyOptions: {strict-cpu-reservation: "true"}
reservedSystemCPUs: 0,2-4,6-7
"""


def state(policy: str, default: str, given: str) -> str:
    return json.dumps(
        {
            "policyName": policy,
            "defaultCpuSet": default,
            "entries": {"uid": {"main": given}},
        }
    )


def test_reserved_isolated_cpus_are_ok(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0,2-3,6-7"')
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("settings", "reserved", "wanted"),
    [
        ("reservedSystemCPUs: 0,2-3", "0,2-3", "0,2-3,6-7"),
        ("kind: KubeletConfiguration", "not set", "2-3,6-7"),
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
        with pytest.raises(files.Unseen, match=f"{name} is not a regular file"):
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
        (STRICT, state("static", "5", "1")),
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
    made_up.kubelet("cpu_manager_state", state("static", "0-1,3-5,7", "2,6"))
    found = kubelet.cpu_manager(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence == "the CPU manager gave isolated CPU 2,6 to containers as cpu"


def test_state_file_of_an_old_kubelet_is_parsed(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    old = {"policyName": "static", "defaultCpuSet": "0-1,3-7", "entries": {"id": "2"}}
    made_up.kubelet("cpu_manager_state", json.dumps(old))
    found = kubelet.cpu_manager(made_up.host())
    assert found.evidence == "the CPU manager gave isolated CPU 2 to containers as cpu"


def test_state_file_of_another_policy_is_a_problem(made_up: MadeUpHost) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", state("none", "", ""))
    found = kubelet.cpu_manager(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert "the policy is static, but cpu_manager_state has policy none" in found.evidence


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cpu_manager_state is not valid JSON"),
        ("", "cpu_manager_state is empty, as after a power loss"),
        (
            '{"policyName": "static", "entries": "x"}',
            "cpu_manager_state has a value of another type",
        ),
        (state("static", "0-6", "1"), "cpu_manager_state both shares and assigns CPU 1"),
    ],
)
def test_state_file_that_the_kubelet_refuses_is_a_problem(
    made_up: MadeUpHost, text: str, reason: str
) -> None:
    made_up.kubelet("config.yaml", STATIC)
    made_up.kubelet("cpu_manager_state", text)
    found = kubelet.cpu_manager(made_up.host())
    assert found.verdict is Verdict.PROBLEM
    assert found.evidence.startswith(reason)
    assert found.evidence.endswith(": the kubelet does not start")
    assert f"remove {made_up.directory}/kubelet/cpu_manager_state" in found.advice


def test_unreadable_state_file_is_unknown(
    made_up: MadeUpHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0,2-3,6-7"')
    made_up.kubelet("cpu_manager_state", state("none", "", ""))
    read = trust.text

    def without_root(path: Path) -> str:
        if str(path).endswith("_state"):
            raise files.Unseen(f"cannot read {path}: Permission denied: run the command as root")
        return read(path)

    monkeypatch.setattr(trust, "text", without_root)
    with pytest.raises(files.Unseen, match="run the command as root"):
        kubelet.cpu_manager(made_up.host())
    # The other checks of the kubelet do not need it.
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK
    assert kubelet.topology_manager(made_up.host()).verdict is Verdict.OK


def test_offline_cpu_is_neither_reserved_nor_missing(made_up: MadeUpHost) -> None:
    made_up.tree.set_offline(7)
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0,2-3,6"')
    assert kubelet.reserved_cpus(made_up.host()).verdict is Verdict.OK
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0,2-3,6-7"')
    found = kubelet.reserved_cpus(made_up.host())
    assert (found.verdict, found.evidence, found.advice) == (
        Verdict.PROBLEM,
        "reservedSystemCPUs is 0,2-3,6-7: CPU 7 is offline: the kubelet does not start",
        'Set in the kubelet\'s configuration: reservedSystemCPUs: "0,2-3,6".',
    )


def test_siblings_that_nosmt_took_offline_are_not_reserved(made_up: MadeUpHost) -> None:
    made_up.tree.set_offline(4, 5, 6, 7)
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0"')
    found = kubelet.reserved_cpus(made_up.host())
    assert found.evidence == (
        "reservedSystemCPUs is 0: isolated CPU 2-3 also counts as the resource cpu"
    )
    assert 'reservedSystemCPUs: "0,2-3".' in found.advice


def test_reserved_cpus_names_a_refusal_and_missing_cpus(made_up: MadeUpHost) -> None:
    made_up.tree.set_offline(7)
    made_up.kubelet("config.yaml", 'reservedSystemCPUs: "0,7"')
    found = kubelet.reserved_cpus(made_up.host())
    assert found.evidence == (
        "reservedSystemCPUs is 0,7: CPU 7 is offline: the kubelet does not start; isolated CPU"
        " 2-3,6 also counts as the resource cpu"
    )
